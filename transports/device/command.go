package device

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

// Limits of a command.
const (
	// MaxCommand is the largest body of a command, in bytes.
	MaxCommand = 1 << 20
	// MaxName is the greatest length of an id or a device's name, in bytes. It is what fits into
	// an AMQP property.
	MaxName = printable.MaxName
	// MaxPriority is the greatest priority of a command.
	MaxPriority = 9
	// MaxTimeout is the longest time that a command may wait for its answer.
	MaxTimeout = 5 * time.Minute
	// maxTTL keeps sums of times far from the limits of their types.
	maxTTL = 100 * 365 * 24 * time.Hour
)

// Encoding is how bytes are written as a JSON string.
type Encoding string

// The encodings. Text is the default.
const (
	Text   Encoding = "text"
	Hex    Encoding = "hex"
	Base64 Encoding = "base64"
)

// Command is a command for one device. It is sent as one frame.
//
// Its JSON is one object with these fields. cmd is required, and so is one of device and address.
// A null means that the field isn't given. An unknown field is rejected: otherwise a misspelt
// expires_at would make a command that never expires.
//
//   - cmd is a string: the payload.
//   - encoding is the encoding of cmd: "text", "hex" or "base64".
//   - device or address is the device's name. If both are given, they must be equal.
//   - id is the command's id.
//   - expires_at is the time after which the command is too late, as in RFC 3339.
//   - ttl is the time until it is too late: a duration above 0 such as "1m30s", or a number of
//     seconds. Only one of ttl and expires_at may be given.
//   - mode is "at-least-once" or "at-most-once".
//   - supersede is the name of the setting that the command changes, or false.
//   - reply is true if the device is expected to answer, and false if not.
//   - timeout is how long the answer may take, written like ttl.
//   - priority is a number from 0 to 9.
//   - offline is "fail" or "hold".
//   - group is the name of a group.
type Command struct {
	// ID is the field id or, if that isn't given, the id of the message. It is empty if neither is
	// given.
	ID string
	// Device is the device's name as the sender wrote it.
	Device string
	// Payload is cmd, decoded. It may share memory with the body of the command.
	Payload []byte
	// Encoding is the encoding of Payload in JSON.
	Encoding Encoding
	// ExpiresAt is the time after which the command is too late. Zero means never.
	ExpiresAt time.Time
	// TTL is the time until the command is too late. It counts from the timestamp of the message
	// or, if it has none, from its receipt. Zero means never.
	TTL time.Duration
	// Mode is empty if the receiver's setting applies.
	Mode Mode
	// Supersede names the setting that the command changes, such as "temperature". The command
	// supersedes waiting commands for the same device and setting. Empty means none.
	Supersede string
	// Reply says whether the device is expected to answer.
	Reply Choice
	// Timeout is how long the answer may take, counted from the write of the command. Zero means
	// that the receiver's setting applies.
	Timeout time.Duration
	// Priority lets the command overtake waiting commands of lower priority for the same device.
	// It is between 0, the default, and MaxPriority.
	Priority int
	// Offline says what happens to the command while its device is offline. Empty means that the
	// receiver's setting applies.
	Offline OfflinePolicy
	// Group is the group that the command was sent to. Its result quotes it. Empty means none.
	Group string
}

// OfflinePolicy says what happens to a command while its device is offline.
type OfflinePolicy string

// The policies. Fail ends the command at once, and Hold holds it until the device connects.
const (
	Fail OfflinePolicy = "fail"
	Hold OfflinePolicy = "hold"
)

// Choice is a setting that a command can make or leave to its receiver.
type Choice int8

// The choices. Unspecified leaves the setting to the receiver.
const (
	Unspecified Choice = iota
	No
	Yes
)

// Or returns the choice as a bool. If the choice is Unspecified, Or returns other.
func (c Choice) Or(other bool) bool {
	if c == Unspecified {
		return other
	}
	return c == Yes
}

// Mode says what happens if the host crashes while it writes a command. Either the command may be
// written twice, or its result may not say whether it was written.
type Mode string

// The modes.
const (
	AtLeastOnce Mode = "at-least-once"
	AtMostOnce  Mode = "at-most-once"
)

// ErrMalformed is the kind of the error that ParseCommand returns for a body that isn't one JSON
// object. Such a command gets no result, because it has no id and no device.
var ErrMalformed = errors.New("not a JSON object")

// Rejection is ParseCommand's error for a JSON object that isn't a valid command.
type Rejection struct {
	// Detail is the reason, for the sender.
	Detail string
	// Given quotes the values that were given as ids, shortened. It is set if the command has no
	// valid id. It helps the sender to find the command.
	Given string
}

func (r *Rejection) Error() string { return r.Detail }

// Format is the command format of a pipeline. The zero value is the common format.
type Format struct {
	// Supersede is the name of an additional field. If a command has no field supersede, its
	// Command.Supersede is the value of the additional field. Empty means that there is no such
	// field.
	Supersede string
}

// Validate returns an error if Supersede is a field of the common format.
func (f Format) Validate() error {
	if f.Supersede != "" && fieldOf([]byte(f.Supersede)) != fieldUnknown {
		return fmt.Errorf("%q is a field of the common command format", f.Supersede)
	}
	return nil
}

// ParseCommand reads a command in the common format.
func ParseCommand(body []byte, messageID string) (Command, error) {
	return Format{}.Parse(body, messageID)
}

// Parse parses the command in body. messageID is the id of the message that has the body, or
// empty. A command without an id gets messageID as its id.
//
// If the body isn't a single JSON object, the error is of kind [ErrMalformed]. Examples are a body
// that is empty, cut off, followed by more text or nested too deep.
//
// For every other invalid command the error is a [*Rejection]. The returned Command then has ID,
// Device and Group if they are valid: given once, UTF-8 and printable.
func (f Format) Parse(body []byte, messageID string) (Command, error) {
	p := newParser(f, body)
	err := p.parseBody(messageID)
	return p.c, err
}

// parseBody parses the whole body into p.c.
func (p *commandParser) parseBody(messageID string) error {
	for p.scan.Begin('{'); p.scan.Next(); {
		p.value = p.scan.Value()
		p.readField()
	}
	// There is no need to check Flaw: a command with an invalid string has been rejected already.
	if err := p.scan.End(); err != nil {
		p.c = Command{}
		return fmt.Errorf("reading a command: %w: %w", ErrMalformed, err)
	}
	p.checkFields(messageID)
	if p.rejection != nil {
		if p.c.ID == "" {
			p.rejection.Given = p.quoteIDs(messageID)
		}
		p.c = Command{ID: p.c.ID, Device: p.c.Device, Group: p.c.Group}
		return p.rejection
	}
	return nil
}

// ParseMessage parses the command in msg, like [Format.Parse]. If the payload can't be
// decompressed (see [transports.Body]), the error is of kind [ErrMalformed].
func (f Format) ParseMessage(msg *message.Message) (Command, error) {
	body, err := transports.Body(msg)
	if err != nil {
		return Command{}, unopenedError{err}
	}
	c, err := f.Parse(body, msg.Metadata[transports.MessageID])
	c.clonePayload(msg)
	return c, err
}

// clonePayload copies the payload of a command whose body was decompressed. So the command doesn't
// keep the whole body in memory.
func (c *Command) clonePayload(msg *message.Message) {
	if msg.Metadata[transports.ContentEncoding] != "" {
		c.Payload = bytes.Clone(c.Payload)
	}
}

// unopenedError is the error for a command whose payload can't be decompressed.
type unopenedError struct{ error }

func (u unopenedError) Error() string        { return "reading a command: " + u.error.Error() }
func (u unopenedError) Unwrap() error        { return u.error }
func (u unopenedError) Is(target error) bool { return target == ErrMalformed }

// decodeText returns the bytes that text encodes.
func decodeText(e Encoding, text []byte) (b []byte, err error) {
	switch e {
	case Text:
		return text, nil
	case Hex:
		b, err = hex.AppendDecode([]byte{}, text)
	case Base64:
		b, err = base64.StdEncoding.Strict().AppendDecode([]byte{}, text)
	default:
		return nil, fmt.Errorf("unknown encoding %q", string(e))
	}
	if err != nil {
		return nil, fmt.Errorf("is not %s: %w", e, err)
	}
	return b, nil
}

// Message returns a message with the command. The command must have an ID, which is also the id of
// the message.
func (c Command) Message() *message.Message {
	return newMessage(c.ID, TypeCommand, c.Device, c.AppendJSON(nil))
}

// AppendJSON appends the command's JSON to dst, with the fields that are set.
func (c Command) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	if c.ID != "" {
		dst = append(dst, `"id":`...)
		dst = jsontext.AppendString(dst, c.ID)
		dst = append(dst, ',')
	}
	dst = append(dst, `"device":`...)
	dst = jsontext.AppendString(dst, c.Device)
	dst = append(dst, `,"cmd":`...)
	dst = appendEncoded(dst, c.Encoding, c.Payload)
	if c.Encoding != Text && c.Encoding != "" {
		dst = append(dst, `,"encoding":`...)
		dst = jsontext.AppendString(dst, string(c.Encoding))
	}
	if !c.ExpiresAt.IsZero() {
		dst = append(dst, `,"expires_at":"`...)
		dst = c.ExpiresAt.AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	if c.TTL != 0 {
		dst = append(dst, `,"ttl":"`...)
		dst = append(dst, c.TTL.String()...)
		dst = append(dst, '"')
	}
	if c.Mode != "" {
		dst = append(dst, `,"mode":`...)
		dst = jsontext.AppendString(dst, string(c.Mode))
	}
	if c.Supersede != "" {
		dst = append(dst, `,"supersede":`...)
		dst = jsontext.AppendString(dst, c.Supersede)
	}
	if c.Reply != Unspecified {
		dst = append(dst, `,"reply":`...)
		dst = strconv.AppendBool(dst, c.Reply == Yes)
	}
	if c.Timeout != 0 {
		dst = append(dst, `,"timeout":"`...)
		dst = append(dst, c.Timeout.String()...)
		dst = append(dst, '"')
	}
	if c.Priority != 0 {
		dst = append(dst, `,"priority":`...)
		dst = strconv.AppendInt(dst, int64(c.Priority), 10)
	}
	if c.Offline != "" {
		dst = append(dst, `,"offline":`...)
		dst = jsontext.AppendString(dst, string(c.Offline))
	}
	if c.Group != "" {
		dst = append(dst, `,"group":`...)
		dst = jsontext.AppendString(dst, c.Group)
	}
	return append(dst, '}')
}

// appendEncoded appends b to dst as a JSON string in the encoding.
func appendEncoded(dst []byte, e Encoding, b []byte) []byte {
	switch e {
	case Hex:
		dst = append(dst, '"')
		dst = hex.AppendEncode(dst, b)
		return append(dst, '"')
	case Base64:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"')
	default:
		return jsontext.AppendString(dst, b)
	}
}
