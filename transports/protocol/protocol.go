// Package protocol is the contract of device protocols.
//
// A codec only finds where frames end. A protocol also says what the host must know of a frame to
// carry messages: which device sent the frame, what the device expects in return, and which
// command the frame answers. It doesn't say what the data mean.
//
// Each implementation is in a folder below this one. It registers itself with [Register] in an
// init function, and passes protocoltest. The implementation rules takes its protocol from a
// configuration file. Write a protocol in Go if it needs loops, timers, encryption or a state of
// its own.
package protocol

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"time"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports/codec"
)

// ErrLater is the kind of the error that Encode returns if the command can't be written yet, for
// example because the device must acknowledge earlier frames first.
var ErrLater = errors.New("the protocol can't write the command yet")

// Protocol says how the devices of one transport talk. Its methods are called concurrently for
// different connections. Methods with the State of one connection are called one at a time.
type Protocol interface {
	// Split is codec.Framing.Split with the state of the connection. data has at least one byte.
	Split(s *State, data []byte, seen int) (advance int, frame []byte, err error)

	// Append is codec.Framing.Append.
	Append(dst, payload []byte) ([]byte, error)

	// Max is codec.Framing.Max.
	Max() int

	// Decode says what a frame that Split has just returned means. v is the zero Verdict. Decode
	// must not keep frame, but Verdict.Response may be a slice of it. An error ends the
	// connection.
	Decode(s *State, frame []byte, v *Verdict) error

	// Encode appends the payload of a command to dst and returns it. Append then makes a frame of
	// the payload. key is the Verdict.Key that the answer to the command will have. An empty key
	// means that answers have no key; see also Keyed.
	//
	// The host calls Encode when it is about to write the command. It writes the frames in the
	// order of the calls, or ends the connection. So Encode may number frames without gaps. The
	// responses of earlier calls of Decode and Tick may be written after the frame. If the
	// connection ends before any byte of the frame is written, the host may encode the command
	// again for the device's next connection.
	//
	// An error of kind codec.ErrPayload rejects the command. After an error of kind ErrLater, the
	// command waits at its place in the queue. The host calls Encode again after each frame of the
	// device, and otherwise about once a second.
	//
	// To check a command that has just arrived, the host also calls Encode with a State that
	// belongs to no connection. So Encode must check the command before it reads the State.
	Encode(s *State, dst []byte, c Command) (payload []byte, key string, err error)
}

// Greeter is implemented by protocols in which the host speaks first.
type Greeter interface {
	// Greet is called when a device has connected, before anything is read from it. It may only
	// set Verdict.Response and Verdict.Raw.
	Greet(s *State, v *Verdict) error
}

// Ticker is implemented by protocols with timers.
type Ticker interface {
	// Tick is called within about a second after State.Wake has passed. The host doesn't call Tick
	// while bytes of the device wait to be handled, because a timer may wait for these bytes.
	// Tick may only set Verdict.Response, Verdict.Raw and Verdict.Problem. An error ends the
	// connection.
	Tick(s *State, now time.Time, v *Verdict) error
}

// Units is implemented by protocols whose devices have units, such as the meters behind a modem. A
// command for the device "modem-1/3" goes to the unit 3 of modem-1.
type Units interface {
	// HasUnits reports whether commands may name a unit.
	HasUnits() bool
}

// Tokens is implemented by protocols whose devices send tokens.
type Tokens interface {
	// HasTokens reports whether Decode sets Verdict.Token.
	HasTokens() bool
}

// Keyed is implemented by protocols that give commands keys.
type Keyed interface {
	// HasKeys reports whether Encode gives commands a key. The host needs to know this before it
	// calls Encode: a command with a key may be written while other commands wait for their
	// answers.
	HasKeys() bool
}

// State belongs to one connection. The host sets Device, Peer, Cert, Auth and Awaits.
type State struct {
	// Device is the name of the device. It is empty until a Verdict has named it.
	Device string
	// Peer is the address of the device.
	Peer netip.AddrPort
	// Cert is the device's certificate, which the host has verified. It is nil if the device has
	// shown none, and without TLS.
	Cert *x509.Certificate
	// Auth says that the host checks the token of the frame that names the device: see
	// Verdict.Token. If a device also sends frames before the one with its token, Decode doesn't
	// name the device for them.
	Auth bool
	// Number counts what the host sends on this connection, for protocols that number it. Only the
	// protocol changes it.
	Number uint32
	// Wake is when the host calls Tick. The zero time means never. Only the protocol changes it.
	Wake time.Time
	// FrameKind is the kind of the frame that Split has returned, if the framing implements
	// codec.Kinds. Only Split changes it.
	FrameKind string
	// Awaits reports whether an answer with the key may still arrive: a command with this key
	// waits for its answer, or its timeout has passed a short time ago. If keys aren't unique,
	// Encode returns ErrLater for such a key. Otherwise the answer to one command could be taken
	// for the answer to another one. Only Encode may call Awaits.
	Awaits func(key string) bool
	// Own is the protocol's own state of the connection.
	Own any
}

// Command is a command that is to be written to a device.
type Command struct {
	// Device is the name of the device, without the unit.
	Device string
	// Unit is the part of the device that the command is for, or "".
	Unit string
	// ID is the id of the command.
	ID string
	// Payload is what the command asks to write.
	Payload []byte
}

// Verdict says what a frame means.
type Verdict struct {
	// Device is the name of the device that sent the frame. It is empty if the frame doesn't say.
	Device string
	// Unit is the part of the device that the frame is from, such as a meter behind a modem. It
	// may be empty.
	Unit string
	// Token is the secret with which the device proves its name, or nil. It may be a slice of the
	// frame. The host copies it and then overwrites it in the frame and in Payload. If neither
	// contains it, the frame isn't published. No other field may contain the token.
	Token []byte
	// Kind is the type of the frame. Messages with the frame have it as kind. It may be empty.
	Kind string

	// Payload is what the host publishes instead of the frame, or gives to the sender as the
	// answer. It may be a message of which the frame is the last part. Nil means the frame. The
	// host copies Payload before it calls Split or Decode again for the connection. It may call
	// Encode before it copies Payload.
	Payload []byte

	// Response is what the host writes to the device because of the frame. Nil means nothing.
	Response []byte
	// Raw means that Response is already framed.
	Raw bool
	// Confirmed means that the host writes Response only after every pipeline that consumes data
	// has settled the frame.
	Confirmed bool
	// Problem is something wrong that doesn't end the connection. The host logs it.
	Problem string
	// Refusal is why the device isn't accepted. If it is set, the host writes Response and closes
	// the connection.
	Refusal string

	// Answers says whether the frame answers a request.
	Answers Answers
	// Key is the key of the request that the frame answers, if Answers is Yes.
	Key string
	// NoData means that the frame isn't published as data. Without NoData, the frame is published,
	// unless it answers a request.
	NoData bool
}

// Answers says whether a frame answers a request.
type Answers int

const (
	// Maybe means that the protocol doesn't know. Such a frame can answer a request without a key.
	Maybe Answers = iota
	// No means that the frame answers no request.
	No
	// Yes means that the frame answers the open request with the same key.
	Yes
)

// Plain returns a protocol that is only a framing. Its verdicts are empty.
func Plain(f codec.Framing) Protocol { return plain{f} }

// IsPlain reports whether Plain has returned the protocol. The methods of such a protocol ignore
// the State.
func IsPlain(p Protocol) bool {
	_, ok := p.(plain)
	return ok
}

type plain struct{ codec.Framing }

func (p plain) Split(_ *State, data []byte, seen int) (int, []byte, error) {
	return p.Framing.Split(data, seen)
}

func (plain) Decode(*State, []byte, *Verdict) error { return nil }

func (plain) Encode(_ *State, dst []byte, c Command) ([]byte, string, error) {
	return append(dst, c.Payload...), "", nil
}

// Config is a protocol's configuration: a pointer to a struct whose exported fields have the tags
// toml and doc. If it has a method Validate() error, this method returns all problems, joined.
// Make each problem with [Invalid].
type Config interface {
	// Protocol builds the protocol. It does no I/O.
	Protocol() (Protocol, error)
}

// AnswerNamer is implemented by configurations of protocols that may say which frames answer a
// command, and by those of transports with such a protocol.
type AnswerNamer interface {
	// NamesAnswers returns the setting that says which frames answer a command, such as
	// "rules[2].answers", or "".
	NamesAnswers() string
}

// Plugin describes a protocol to the registry.
type Plugin struct {
	// Name is the name in `protocol = "name"`.
	Name string
	// Summary is one line about the protocol and its devices.
	Summary string
	// Description is Markdown for the protocol's page.
	Description string
	// Config returns a new configuration with every default set.
	Config func() Config
}

const kind = "protocol"

func init() { plugin.Define[Config](kind) }

// Register makes a protocol known. Call it from an init function. It panics if the name is taken.
func Register(p Plugin) {
	plugin.Register(kind, plugin.Info{
		Name: p.Name, Summary: p.Summary, Description: p.Description, Extra: p,
		New: func() any { return p.Config() },
	})
}

// Invalid returns an error for Validate. field is the TOML key of the field that is wrong.
func Invalid(field, format string, args ...any) error {
	return plugin.Invalid(field, format, args...)
}

// InvalidAt is [Invalid] for a field whose text is wrong at one byte. offset is the number of
// bytes before it. The host shows that place in the file.
func InvalidAt(field, text string, offset int, format string, args ...any) error {
	return plugin.InvalidAt(field, text, offset, format, args...)
}
