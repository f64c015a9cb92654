// Package codec is the framing contract: how payloads are laid into, and found in, a device's byte stream.
//
// An implementation lives in a folder of its own below this one, registers itself with [Register] in an init
// function, and passes codectest.
package codec

import (
	"errors"

	"github.com/pentrough/pentrough/internal/plugin"
)

// ErrFrame is the kind of every error that Split returns: the stream cannot be framed any more and the connection
// must be closed.
var ErrFrame = errors.New("stream cannot be framed")

// ErrPayload is the kind of every error that Append returns: this payload can never be a frame. The connection is
// untouched.
var ErrPayload = errors.New("payload cannot be a frame")

// Framing turns payloads into frames and back. It holds no state and is safe for concurrent use.
type Framing interface {
	// Append appends the frame of payload to dst and returns it. A payload that can't be framed exactly as it is
	// returns an error of kind ErrPayload, says why, and leaves dst's content as it was. Nothing is ever stripped or
	// escaped.
	Append(dst, payload []byte) ([]byte, error)

	// Split finds the first frame in data. It returns how many bytes of data it used up and the payload, a slice of
	// data. An advance of 0 means that more bytes are needed. A nil payload with advance > 0 skips bytes that carry no
	// frame; an empty frame is an empty slice that isn't nil. An error of kind ErrFrame (longer than the limit, for
	// example) ends the stream: no frame can be found in it any more.
	Split(data []byte) (advance int, payload []byte, err error)

	// Max is the largest number of bytes, overhead included, that Split may need to see before it returns a frame or
	// an error. A reader's buffer never grows beyond it.
	Max() int
}

// Config is a codec's configuration: a pointer to a struct whose exported fields have toml and doc tags.
// An optional method Validate() error reports all problems, joined, each made with [Invalid].
type Config interface {
	// New builds the framing.
	New() (Framing, error)
}

// Plugin describes a codec to the registry.
type Plugin struct {
	// Name is what `framing = "name"` says.
	Name string
	// Summary is one line.
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

// Named returns a new configuration, with its defaults, of the codec of that name, for contracts that have a default codec;
// nil if there is no such codec.
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

// Invalid returns an error for Validate that belongs to one field, named by its TOML key.
func Invalid(field, format string, args ...any) error {
	return plugin.Invalid(field, format, args...)
}
