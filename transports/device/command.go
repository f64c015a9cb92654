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

// Bounds of a command.
const (
	// MaxCommand is the largest body of a command, in bytes.
	MaxCommand = 1 << 20
	// MaxName is the largest id or device name in bytes, which is what fits into an AMQP property.
	MaxName = printable.MaxName
	// MaxPriority is a command's greatest priority.
	MaxPriority = 9
	// MaxTimeout is the longest that a command waits for its answer.
	MaxTimeout = 5 * time.Minute
	// maxTTL keeps sums of times far from their limits.
	maxTTL = 100 * 365 * 24 * time.Hour
)

// Encoding says how bytes are written as a JSON string.
type Encoding string

// The encodings. Text is the default.
const (
	Text   Encoding = "text"
	Hex    Encoding = "hex"
	Base64 Encoding = "base64"
)

// Command is what is to be sent to one device, as one frame.
//
// Its JSON is one object: `cmd` (a string, required), `device` or `address` (required; both must agree), `id`, `encoding` of
// cmd ("text", "hex" or "base64"), when it is too late: `expires_at` (RFC 3339), or `ttl` (above 0: a duration such
// as "1m30s", or a number of seconds), `mode` ("at-least-once" or "at-most-once"), `supersede` (a name, or false), `reply` (whether the device
// is to answer), `timeout` (how long that may take, written as ttl is), `priority` (0 to 9), `offline` ("fail" or "hold") and `group` (a name). A null counts as not
// given. Every other field is unknown and rejected, so that a misspelt expires_at is never a command without an end.
type Command struct {
	// ID is the field id, else the message's id; empty if neither was given.
	ID string
	// Device is the device as the sender named it.
	Device string
	// Payload is cmd, decoded. It may be a part of the body that it was read from.
	Payload []byte
	// Encoding is how Payload was, and is to be, written.
	Encoding Encoding
	// ExpiresAt is when the command is too late; zero is never.
	ExpiresAt time.Time
	// TTL is after how long it is too late, counted from the message's timestamp, else from its receipt; zero is never.
	TTL time.Duration
	// Mode is what is promised; empty if the sender leaves that to the receiver.
	Mode Mode
	// Supersede names what the command sets, such as "temperature": it takes the place of commands for the same device and name that still wait.
	// Empty: of none.
	Supersede string
	// Reply says whether the device is to answer.
	Reply Choice
	// Timeout is how long the answer may take, counted from when the command is written; zero leaves that to the receiver.
	Timeout time.Duration
	// Priority lets the command overtake those for the same device that wait and have less, from 0, which is the usual, to MaxPriority.
	Priority int
	// Offline is what becomes of the command while its device is away; empty if the sender leaves that to the receiver.
	Offline OfflinePolicy
	// Group names the group for which the command was made, and comes back in its result; empty: for none.
	Group string
}

// OfflinePolicy says what becomes of a command while its device is away.
type OfflinePolicy string

// The policies: Fail ends the command at once, Hold keeps it until the device is there.
const (
	Fail OfflinePolicy = "fail"
	Hold OfflinePolicy = "hold"
)

// Choice is what a command says of something that its receiver decides otherwise.
type Choice int8

// The choices.
const (
	Unspecified Choice = iota
	No
	Yes
)

// Or is the choice, or other if there is none.
func (c Choice) Or(other bool) bool {
	if c == Unspecified {
		return other
	}
	return c == Yes
}

// Mode says what a crash in the middle of a command may cost: that it is done twice, or that it isn't known whether it was done.
type Mode string

// The modes.
const (
	AtLeastOnce Mode = "at-least-once"
	AtMostOnce  Mode = "at-most-once"
)

// ErrMalformed is the kind of ParseCommand's error for a body that isn't one JSON object: there is nobody to answer.
var ErrMalformed = errors.New("not a JSON object")

// Rejection is ParseCommand's error for a JSON object that isn't a command which can be carried out.
type Rejection struct {
	// Detail is for the command's sender.
	Detail string
	// Given quotes, shortened, what stands where an id should, if the command has no id that can be trusted: by it the sender
	// may still know which command is meant.
	Given string
}

func (r *Rejection) Error() string { return r.Detail }

// Format is what is particular to the commands of a pipeline. The zero value is the common format.
type Format struct {
	// Supersede is a further field that a command may have, whose value is its Command.Supersede unless the field `supersede` says another. Empty: none.
	Supersede string
}

// Validate returns an error if the format isn't one.
func (f Format) Validate() error {
	if f.Supersede != "" && fieldOf([]byte(f.Supersede)) != fieldUnknown {
		return fmt.Errorf("%q is a field of every command", f.Supersede)
	}
	return nil
}

// ParseCommand reads a command in the common format.
func ParseCommand(body []byte, messageID string) (Command, error) {
	return Format{}.Parse(body, messageID)
}

// Parse reads the command in body, strictly: one walk, no guesses. messageID is the id of the message that carried it, used
// if the command names none; it may be empty.
//
// A body that isn't one JSON object (empty, cut off, followed by something, nested too deep) gives an error of kind
// [ErrMalformed]. Any other body that isn't a good command gives a [*Rejection], and a Command whose ID, Device and Group
// are set as far as they can be trusted: not if they were given twice, aren't UTF-8 or aren't printable.
func (f Format) Parse(body []byte, messageID string) (Command, error) {
	p := newParser(f, body)
	err := p.parseBody(messageID)
	return p.c, err
}

// parse reads the whole body into p.c.
func (p *commandParser) parseBody(messageID string) error {
	for p.scan.Begin('{'); p.scan.Next(); {
		p.value = p.scan.Value()
		p.readField()
	}
	// What the scanner finds wrong with a string has been rejected where the string was read.
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

// ParseMessage reads the command that msg carries, as [Format.Parse] does. A payload that can't be opened
// (see [transports.Body]) gives an error of kind [ErrMalformed].
func (f Format) ParseMessage(msg *message.Message) (Command, error) {
	body, err := transports.Body(msg)
	if err != nil {
		return Command{}, unopenedError{err}
	}
	c, err := f.Parse(body, msg.Metadata[transports.MessageID])
	c.clonePayload(msg)
	return c, err
}

// own has a command whose body was opened keep its payload alone, and not the whole body.
func (c *Command) clonePayload(msg *message.Message) {
	if msg.Metadata[transports.ContentEncoding] != "" {
		c.Payload = bytes.Clone(c.Payload)
	}
}

// unopened is the error of a command whose payload can't be opened.
type unopenedError struct{ error }

func (u unopenedError) Error() string        { return "reading a command: " + u.error.Error() }
func (u unopenedError) Unwrap() error        { return u.error }
func (u unopenedError) Is(target error) bool { return target == ErrMalformed }

// decode returns the bytes that text stands for.
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

// Message returns a message that carries the command. Its id is the command's, which must be set.
func (c Command) Message() *message.Message {
	return newMessage(c.ID, TypeCommand, c.Device, c.AppendJSON(nil))
}

// AppendJSON appends the command's JSON, with the fields that are set, to dst.
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

// appendEncoded appends bytes in an encoding, as a JSON string.
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
