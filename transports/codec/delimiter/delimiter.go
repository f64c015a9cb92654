// Package delimiter is the codec for payloads that end with configured bytes.
//
//	framing = { type = "delimiter", delimiter = "#" }
//	framing = { type = "delimiter", delimiter = '\x03', max = 1024 }
package delimiter

import (
	"bytes"
	"fmt"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the delimiter codec's configuration.
type Config struct {
	Delimiter string `toml:"delimiter" doc:"The bytes that end a frame. In addition to TOML's own escapes, \\xNN stands for any byte, and \\r, \\n, \\t, \\0 and \\\\ have their usual meanings." required:"true" example:"'\\x03'"`
	Max       int    `toml:"max" doc:"The longest payload, without the delimiter, in either direction." unit:"bytes" min:"1" max:"16777216" example:"4096"`
}

var defaults = Config{Max: 4096}

func init() {
	codec.Register(codec.Plugin{
		Name:    "delimiter",
		Summary: "Payloads that end with configured bytes.",
		Description: "A command is rejected if its payload contains the delimiter, or if a reader would find a " +
			"delimiter before the end of the frame. An example is the payload `xa` with the delimiter " +
			"`aa`. The codec strips and escapes nothing. If a device sends more than `max` bytes " +
			"without a delimiter, it is disconnected.",
		Config: func() codec.Config {
			c := defaults
			return &c
		},
	})
}

// Validate checks the delimiter.
func (c *Config) Validate() error {
	_, err := codec.ParseBytes(c.Delimiter)
	if err != nil {
		return codec.Invalid("delimiter", "%v", err)
	}
	return nil
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	d, err := codec.ParseBytes(c.Delimiter)
	if err != nil {
		return nil, codec.Invalid("delimiter", "%v", err)
	}
	return framing{delimiter: d, max: c.Max}, nil
}

type framing struct {
	delimiter []byte
	max       int
}

func (f framing) Max() int { return f.max + len(f.delimiter) }

func (f framing) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) > f.max {
		return dst, fmt.Errorf("%w: %d bytes are more than a frame's %d", codec.ErrPayload, len(payload), f.max)
	}
	start := len(dst)
	out := append(append(dst, payload...), f.delimiter...)
	// Search the whole frame: a delimiter can begin in the payload and end in the appended one.
	if i := bytes.Index(out[start:], f.delimiter); i < len(payload) {
		return dst, fmt.Errorf("%w: the delimiter is at byte %d", codec.ErrPayload, i)
	}
	return out, nil
}

func (f framing) Split(data []byte, seen int) (int, []byte, error) {
	from := max(0, seen-len(f.delimiter)+1)
	i := bytes.Index(data[from:min(len(data), f.Max())], f.delimiter)
	switch {
	case i >= 0:
		end := from + i
		return end + len(f.delimiter), data[:end], nil
	case len(data) >= f.Max():
		return 0, nil, fmt.Errorf("%w: no delimiter within %d bytes", codec.ErrFrame, f.max)
	}
	return 0, nil, nil
}
