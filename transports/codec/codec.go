// Package codec is the contract of codecs, which make frames of payloads and find the frames in a
// device's byte stream.
//
// Each implementation is in a folder below this one. It registers itself with [Register] in an
// init function, and passes codectest.
package codec

import (
	"errors"

	"github.com/pentrough/pentrough/internal/plugin"
)

// ErrFrame is the kind of every error that Split returns. No more frames can be found in the
// stream, so close the connection.
var ErrFrame = errors.New("stream cannot be framed")

// ErrPayload is the kind of every error that Append returns. This payload can never be a frame.
// The connection isn't affected.
var ErrPayload = errors.New("payload cannot be a frame")

// Framing turns payloads into frames and back. It has no state and is safe for concurrent use.
type Framing interface {
	// Append appends the frame of payload to dst and returns it. The receiver must get the payload
	// exactly as it is. If that isn't possible, Append returns dst unchanged, and an error of kind
	// ErrPayload that says why.
	Append(dst, payload []byte) ([]byte, error)

	// Split finds the first frame in data. It returns the number of bytes that it has used, and
	// the payload, which is a slice of data. If advance is 0, Split needs more bytes. If the
	// payload is nil and advance isn't 0, the bytes contain no frame and are skipped. For an empty
	// frame, return an empty slice that isn't nil. An error of kind ErrFrame ends the stream, for
	// example if a frame is longer than the limit.
	//
	// An earlier call may have returned advance 0 for the first seen bytes of data. So a framing
	// that searches for an end can go on there. In a new stream, and after a frame, seen is 0.
	//
	// Split may rewrite data[:advance], for example to remove escapes. If it returns advance 0, it
	// leaves data unchanged.
	Split(data []byte, seen int) (advance int, payload []byte, err error)

	// Max returns the most bytes, including overhead, that Split needs to return a frame or an
	// error. A reader's buffer never grows beyond it.
	Max() int
}

// Kinds is implemented by framings that distinguish kinds of frames.
type Kinds interface {
	Framing
	// SplitKind is Split, and also returns the name of the frame's kind.
	SplitKind(data []byte, seen int) (advance int, payload []byte, kind string, err error)
}

// Config is a codec's configuration: a pointer to a struct whose exported fields have the tags
// toml and doc. If it has a method Validate() error, that returns all problems, joined. Make each
// problem with [Invalid].
type Config interface {
	// New builds the framing.
	New() (Framing, error)
}

// Plugin describes a codec to the registry.
type Plugin struct {
	// Name is the name in `framing = "name"`.
	Name string
	// Summary is one line about the codec.
	Summary string
	// Description is Markdown for the codec's page.
	Description string
	// Config returns a new configuration with every default set.
	Config func() Config
}

const kind = "codec"

func init() { plugin.Define[Config](kind) }

// Register makes a codec known. Call it from an init function. It panics if the name is taken.
func Register(p Plugin) {
	plugin.Register(kind, plugin.Info{
		Name: p.Name, Summary: p.Summary, Description: p.Description, Extra: p,
		New: func() any { return p.Config() },
	})
}

// Named returns a new default configuration of the codec of that name, or nil if there is no such
// codec. It is for contracts with a default codec.
func Named(name string) Config {
	k, ok := plugin.Registered().Kind(kind)
	if !ok {
		return nil
	}
	info, ok := k.Lookup(name)
	if !ok {
		return nil
	}
	c, _ := info.New().(Config)
	return c
}

// InvalidAt is [Invalid] for one byte of the field's text. The error shows the place.
func InvalidAt(field, text string, offset int, format string, args ...any) error {
	return plugin.InvalidAt(field, text, offset, format, args...)
}

// Invalid returns an error for Validate. It belongs to one field, which is named by its TOML key.
func Invalid(field, format string, args ...any) error {
	return plugin.Invalid(field, format, args...)
}
