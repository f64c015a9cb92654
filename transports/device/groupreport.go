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

// GroupState is what became of a command for a group.
type GroupState string

// The states.
const (
	// GroupExpanded means that each device of the group has its command on the way.
	GroupExpanded GroupState = "expanded"
	// GroupRejected means that the command is a bad one, and no device has one.
	GroupRejected GroupState = "rejected"
	// GroupFinished means that all the commands have ended, each in a state of its own.
	GroupFinished GroupState = "finished"
	// GroupUnfinished means that not all of them are known to have ended, and that this isn't waited for any longer.
	GroupUnfinished GroupState = "unfinished"
)

// Code returns the number that stands for the state, in the manner of HTTP.
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

// GroupReport is what became of a command for a group. In its JSON, id, state, code, host and time are always there; the others where they say
// something.
type GroupReport struct {
	ID    string
	Group string
	State GroupState
	// Detail says more for people.
	Detail string
	// Devices is how many devices the group has; 0 if that isn't known.
	Devices int
	// States counts the devices by the states in which their commands ended.
	States map[State]int
	// Unfinished is how many devices have no such state yet.
	Unfinished int
	// Host is the host that says so.
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
	text, _ := json.Marshal(out) // strings, numbers and a time always work
	return text
}

// ParseGroupReport reads the JSON of a report. Fields that it doesn't know are left out.
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

// Message returns a message of this id that carries the report.
func (r GroupReport) Message(id string) *message.Message {
	return newMessage(id, TypeGroup, "", r.JSON()) // it is about several devices
}
