package device

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/transports"
)

// State is what became of a command.
type State string

// The states. All but Held are terminal: a command ends in exactly one of them.
const (
	// StateHeld means that the command waits for its device to connect.
	StateHeld State = "held"
	// StateAnswered means that the device answered, which alone proves that it got the command.
	StateAnswered State = "answered"
	// StateSent means that the kernel took the frame's last byte for the device's live session, no more.
	StateSent State = "sent"
	// StateRejected means that the command is a bad one and was not sent.
	StateRejected State = "rejected"
	// StateUnknownDevice means that the inventory has no such device.
	StateUnknownDevice State = "unknown-device"
	// StateSuperseded means that a newer command took its place before it was sent.
	StateSuperseded State = "superseded"
	// StateExpired means that its time was over before it was sent.
	StateExpired State = "expired"
	// StateBusy means that too many commands wait for the device.
	StateBusy State = "busy"
	// StateOffline means that the device has no session, and nothing was sent.
	StateOffline State = "offline"
	// StateNoReply means that it was sent and the device did not answer in time.
	StateNoReply State = "no-reply"
	// StateUnknown means that it may have been sent, in whole or in part.
	StateUnknown State = "unknown"
)

// Code returns the number that stands for the state, in the manner of HTTP.
func (s State) Code() int {
	switch s {
	case StateHeld:
		return 102
	case StateAnswered:
		return 200
	case StateSent:
		return 202
	case StateRejected:
		return 400
	case StateUnknownDevice:
		return 404
	case StateSuperseded:
		return 409
	case StateExpired:
		return 410
	case StateBusy:
		return 429
	case StateOffline:
		return 503
	case StateNoReply:
		return 504
	case StateUnknown:
		return 520
	default:
		return 500
	}
}

// Terminal reports whether nothing comes after the state.
func (s State) Terminal() bool { return s != StateHeld }

// TypeResult is the transports.Type of messages that carry a result; TypeCommand of those that carry a command.
const (
	TypeResult  = "result"
	TypeCommand = "command"
)

// contentJSON is the transports.ContentType of all messages of this package.
const contentJSON = "application/json"

// Result is what became of a command. In its JSON, id, device, state, code, host, attempt and time are always there; the others where they
// say something.
type Result struct {
	ID     string
	Device string
	// Group is that of the command.
	Group string
	State State
	// Detail says more for people.
	Detail string
	// Reply is what the device answered, and Encoding how it is written; without an encoding there was none.
	Reply    []byte
	Encoding Encoding
	// Host is the host that decided the state.
	Host string
	// Epoch is the session's; 0 if there was none.
	Epoch uint64
	// Attempt counts how often the command was begun.
	Attempt int
	Time    time.Time
}

// AppendJSON appends the result's JSON to dst.
func (r Result) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"id":`...)
	dst = jsontext.AppendString(dst, r.ID)
	dst = append(dst, `,"device":`...)
	dst = jsontext.AppendString(dst, r.Device)
	if r.Group != "" {
		dst = append(dst, `,"group":`...)
		dst = jsontext.AppendString(dst, r.Group)
	}
	dst = append(dst, `,"state":`...)
	dst = jsontext.AppendString(dst, string(r.State))
	dst = append(dst, `,"code":`...)
	dst = strconv.AppendInt(dst, int64(r.State.Code()), 10)
	if r.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = jsontext.AppendString(dst, r.Detail)
	}
	if r.Encoding != "" {
		dst = append(dst, `,"reply":`...)
		dst = appendEncoded(dst, r.Encoding, r.Reply)
		dst = append(dst, `,"encoding":`...)
		dst = jsontext.AppendString(dst, string(r.Encoding))
	}
	dst = append(dst, `,"host":`...)
	dst = jsontext.AppendString(dst, r.Host)
	if r.Epoch != 0 {
		dst = append(dst, `,"epoch":`...)
		dst = strconv.AppendUint(dst, r.Epoch, 10)
	}
	dst = append(dst, `,"attempt":`...)
	dst = strconv.AppendInt(dst, int64(r.Attempt), 10)
	dst = append(dst, `,"time":"`...)
	dst = r.Time.AppendFormat(dst, time.RFC3339Nano)
	return append(dst, `"}`...)
}

// ParseResult reads the JSON of a result, as a consumer of results does. Fields that it doesn't know are left out.
func ParseResult(body []byte) (Result, error) {
	var in struct {
		ID, Device, Group, Detail, Host string
		State                           State
		Reply                           *string
		Encoding                        Encoding
		Epoch                           uint64
		Attempt                         int
		Time                            time.Time
	}
	if err := jsontext.Unmarshal(body, &in); err != nil {
		return Result{}, fmt.Errorf("reading a result: %w", err)
	}
	if in.State == "" {
		return Result{}, errors.New("reading a result: it has no state")
	}
	r := Result{
		ID: in.ID, Device: in.Device, Group: in.Group, State: in.State, Detail: in.Detail, Host: in.Host,
		Epoch: in.Epoch, Attempt: in.Attempt, Time: in.Time,
	}
	if in.Reply != nil {
		reply, err := decodeText(in.Encoding, []byte(*in.Reply))
		if err != nil {
			return Result{}, fmt.Errorf("reading a result: reply: %w", err)
		}
		r.Reply, r.Encoding = reply, in.Encoding
	}
	return r, nil
}

// Message returns a new message that carries the result.
func (r Result) Message() *message.Message {
	return newMessage(uuid.NewString(), TypeResult, r.Device, r.AppendJSON(make([]byte, 0, 256)))
}

func newMessage(id, kind, device string, payload []byte) *message.Message {
	return &message.Message{UUID: id, Metadata: newMetadata(id, kind, device), Payload: payload}
}

// newMetadata are those of a message about a device, "" for the host.
func newMetadata(id, kind, device string) message.Metadata {
	m := message.Metadata{transports.MessageID: id, transports.Type: kind, transports.ContentType: contentJSON}
	if device != "" {
		m[transports.Device] = device
	}
	return m
}
