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

// State is the state of a command, as its result reports it.
type State string

// The states. All but StateHeld are terminal: a command ends in exactly one of them.
const (
	// StateHeld means that the command is held until its device connects.
	StateHeld State = "held"
	// StateAnswered means that the device answered. Only this proves that it received the command.
	StateAnswered State = "answered"
	// StateSent means that the kernel took the frame's last byte for the device. It doesn't mean
	// that the device received it.
	StateSent State = "sent"
	// StateRejected means that the command is invalid and wasn't sent.
	StateRejected State = "rejected"
	// StateUnknownDevice means that the inventory doesn't list the device.
	StateUnknownDevice State = "unknown-device"
	// StateSuperseded means that a newer command for the same setting arrived before this one was
	// sent.
	StateSuperseded State = "superseded"
	// StateExpired means that the command's time was over before it was sent.
	StateExpired State = "expired"
	// StateBusy means that too many commands wait for the device.
	StateBusy State = "busy"
	// StateOffline means that the device is offline and nothing was sent.
	StateOffline State = "offline"
	// StateNoReply means that the command was sent and the device didn't answer in time.
	StateNoReply State = "no-reply"
	// StateUnknown means that the command may have been sent, wholly or in part.
	StateUnknown State = "unknown"
)

// Code returns the state's number, which follows the HTTP status codes.
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

// Terminal reports whether the state is the command's last one.
func (s State) Terminal() bool { return s != StateHeld }

// TypeResult is the transports.Type of messages that carry a result, and TypeCommand of those that
// carry a command.
const (
	TypeResult  = "result"
	TypeCommand = "command"
)

// contentJSON is the transports.ContentType of all messages of this package.
const contentJSON = "application/json"

// Result reports the state of a command. Its JSON always has id, device, state, code, host,
// attempt and time. It has the other fields if they are set.
type Result struct {
	ID     string
	Device string
	// Group is the command's group.
	Group string
	State State
	// Detail is the reason in words.
	Detail string
	// Reply is the device's answer, and Encoding is how the JSON encodes it. An empty Encoding
	// means that there is no answer.
	Reply    []byte
	Encoding Encoding
	// Host is the name of the host that decided the state.
	Host string
	// Epoch is the epoch of the session in which the command was written; 0 means none.
	Epoch uint64
	// Attempt is how many times the command has begun.
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

// ParseResult parses the JSON of a result, for consumers of results. It ignores unknown fields.
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

// Message returns a new message with the result.
func (r Result) Message() *message.Message {
	return newMessage(uuid.NewString(), TypeResult, r.Device, r.AppendJSON(make([]byte, 0, 256)))
}

func newMessage(id, kind, device string, payload []byte) *message.Message {
	return &message.Message{UUID: id, Metadata: newMetadata(id, kind, device), Payload: payload}
}

// newMetadata returns the metadata of a message about a device. device is "" if the message isn't
// about one device.
func newMetadata(id, kind, device string) message.Metadata {
	m := message.Metadata{transports.MessageID: id, transports.Type: kind, transports.ContentType: contentJSON}
	if device != "" {
		m[transports.Device] = device
	}
	return m
}
