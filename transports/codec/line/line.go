// Package line is the codec for lines of text. Most devices with a terminal interface use it.
//
//	framing = "line"
//	framing = { type = "line", max = 1024, terminator = "lf" }
//
// A received line ends with LF, or with CR LF. A sent line ends with CR LF, or with LF if the
// terminator says so.
package line

import (
	"bytes"
	"fmt"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the line codec's configuration.
type Config struct {
	Max        int    `toml:"max" doc:"The longest line, without its ending, in either direction." unit:"bytes" min:"1" max:"16777216" example:"4096"`
	Terminator string `toml:"terminator" doc:"The ending of sent lines. Received lines may have either ending." enum:"crlf,lf" example:"\"crlf\""`
}

var defaults = Config{Max: 4096, Terminator: "crlf"}

var terminators = map[string]string{"crlf": "\r\n", "lf": "\n"}

func init() {
	codec.Register(codec.Plugin{
		Name:    "line",
		Summary: "Lines of text that end with CR LF or LF.",
		Description: "Each line is a payload. A command is rejected if its payload contains CR, LF or NUL, or is longer than " +
			"`max`; the codec strips and escapes nothing. A device that sends a longer line is disconnected.",
		Config: func() codec.Config {
			c := defaults
			return &c
		},
	})
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	terminator, ok := terminators[c.Terminator]
	if !ok {
		return nil, codec.Invalid("terminator", "%q is neither crlf nor lf", c.Terminator)
	}
	return framing{max: c.Max, terminator: terminator}, nil
}

type framing struct {
	max        int
	terminator string
}

func (f framing) Max() int { return f.max + len("\r\n") }

func (f framing) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) > f.max {
		return dst, fmt.Errorf("%w: %d bytes are more than a line's %d", codec.ErrPayload, len(payload), f.max)
	}
	for _, forbidden := range [...]struct {
		b    byte
		name string
	}{{'\n', "LF"}, {'\r', "CR"}, {0, "NUL"}} {
		if i := bytes.IndexByte(payload, forbidden.b); i >= 0 {
			return dst, fmt.Errorf("%w: %s at byte %d of a line", codec.ErrPayload, forbidden.name, i)
		}
	}
	return append(append(dst, payload...), f.terminator...), nil
}

func (f framing) Split(data []byte, seen int) (int, []byte, error) {
	line, end := data, -1
	if i := bytes.IndexByte(data[seen:min(len(data), f.Max())], '\n'); i >= 0 {
		end = seen + i
		line = data[:end]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	switch {
	case len(line) > f.max:
		return 0, nil, fmt.Errorf("%w: a line is longer than %d bytes", codec.ErrFrame, f.max)
	case end < 0:
		return 0, nil, nil
	}
	return end + 1, line, nil
}
