package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/jsontext"
)

// TypeGroup is the transports.Type of messages that carry a [GroupReport].
const TypeGroup = "group"

// GroupState is the state of a command for a group.
type GroupState string

// The states.
const (
	// GroupExpanded means that a command for each device of the group was published.
	GroupExpanded GroupState = "expanded"
	// GroupRejected means that the command is invalid, and no device gets it.
	GroupRejected GroupState = "rejected"
	// GroupFinished means that the commands of all devices have ended, each in its own state.
	GroupFinished GroupState = "finished"
	// GroupUnfinished means that some commands haven't ended, as far as the host knows, and that
	// it no longer waits for them.
	GroupUnfinished GroupState = "unfinished"
)

// Code returns the state's number, which follows the HTTP status codes.
func (s GroupState) Code() int {
	switch s {
	case GroupExpanded:
		return 202
	case GroupRejected:
		return 400
	case GroupFinished:
		return 200
	default:
		return 504
	}
}

// GroupReport reports the state of a command for a group. Its JSON always has id, state, code,
// host and time. It has the other fields if they are set.
type GroupReport struct {
	ID    string
	Group string
	State GroupState
	// Detail is the reason in words.
	Detail string
	// Devices is the number of devices in the group, or 0 if it isn't known.
	Devices int
	// States is the number of devices by the state in which their commands ended.
	States map[State]int
	// Unfinished is the number of devices whose commands haven't ended.
	Unfinished int
	// Host is the name of the host that made the report.
	Host string
	Time time.Time
}

type groupReportJSON struct {
	ID         string        `json:"id"`
	Group      string        `json:"group,omitempty"`
	State      GroupState    `json:"state"`
	Code       int           `json:"code"`
	Detail     string        `json:"detail,omitempty"`
	Devices    int           `json:"devices,omitempty"`
	States     map[State]int `json:"states,omitempty"`
	Unfinished *int          `json:"unfinished,omitempty"`
	Host       string        `json:"host"`
	Time       time.Time     `json:"time"`
}

// JSON returns the report's JSON.
func (r GroupReport) JSON() []byte {
	out := groupReportJSON{ID: r.ID, Group: r.Group, State: r.State, Code: r.State.Code(), Detail: r.Detail, Devices: r.Devices, States: r.States, Host: r.Host, Time: r.Time}
	if r.Devices > 0 && (r.State == GroupFinished || r.State == GroupUnfinished) {
		out.Unfinished = &r.Unfinished
	}
	text, _ := json.Marshal(out) // marshaling strings, numbers and a time can't fail
	return text
}

// ParseGroupReport parses the JSON of a report. It ignores unknown fields.
func ParseGroupReport(body []byte) (GroupReport, error) {
	var in groupReportJSON
	if err := jsontext.Unmarshal(body, &in); err != nil {
		return GroupReport{}, fmt.Errorf("reading a group's report: %w", err)
	}
	if in.State == "" {
		return GroupReport{}, errors.New("reading a group's report: it has no state")
	}
	r := GroupReport{ID: in.ID, Group: in.Group, State: in.State, Detail: in.Detail, Devices: in.Devices, States: in.States, Host: in.Host, Time: in.Time}
	if in.Unfinished != nil {
		r.Unfinished = *in.Unfinished
	}
	return r, nil
}

// Message returns a message with the report and the given id.
func (r GroupReport) Message(id string) *message.Message {
	return newMessage(id, TypeGroup, "", r.JSON()) // it is about several devices
}
