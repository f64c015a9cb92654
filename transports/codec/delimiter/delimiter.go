// Package delimiter is the codec for payloads that end with configured bytes.
//
//	framing = { type = "delimiter", delimiter = "#" }
//	framing = { type = "delimiter", delimiter = '\x03', max = 1024 }
package delimiter

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the delimiter codec's configuration.
type Config struct {
	Delimiter string `toml:"delimiter" doc:"The bytes that end a frame. In addition to TOML's own escapes, \\xNN stands for any byte, and \\r, \\n, \\t, \\0 and \\\\ for the usual ones." required:"true" example:"'\\x03'"`
	Max       int    `toml:"max" doc:"The longest payload, without the delimiter, in either direction." unit:"bytes" min:"1" max:"16777216" example:"4096"`
}

var defaults = Config{Max: 4096}

func init() {
	codec.Register(codec.Plugin{
		Name:    "delimiter",
		Summary: "Payloads that end with configured bytes.",
		Description: "A command is rejected if a reader would find the delimiter before the end of its " +
			"payload; the codec strips and escapes nothing. If a device sends more than `max` bytes " +
			"without a delimiter, it is disconnected.",
		Config: func() codec.Config {
			c := defaults
			return &c
		},
	})
}

// Validate checks the delimiter.
func (c *Config) Validate() error {
	_, err := unescape(c.Delimiter)
	if err != nil {
		return codec.Invalid("delimiter", "%v", err)
	}
	return nil
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	d, err := unescape(c.Delimiter)
	if err != nil {
		return nil, codec.Invalid("delimiter", "%v", err)
	}
	return framing{delimiter: d, max: c.Max}, nil
}

// unescape returns the bytes that the configured text means.
func unescape(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("must be at least one byte")
	}
	var out []byte
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			out = append(out, s[i])
			i++
			continue
		}
		if i+1 == len(s) {
			return nil, errors.New(`ends with a single \; write \\`)
		}
		switch s[i+1] {
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case '0':
			out = append(out, 0)
		case '\\':
			out = append(out, '\\')
		case 'x':
			b, err := strconv.ParseUint(s[i+2:min(i+4, len(s))], 16, 8)
			if err != nil || i+4 > len(s) {
				return nil, errors.New(`\x needs two hexadecimal digits`)
			}
			out = append(out, byte(b))
			i += 2
		default:
			r, _ := utf8.DecodeRuneInString(s[i+1:])
			return nil, fmt.Errorf(`\%c is not an escape; allowed are \xNN, \r, \n, \t, \0 and \\`, r)
		}
		i += 2
	}
	return out, nil
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

func (f framing) Split(data []byte) (int, []byte, error) {
	end := bytes.Index(data[:min(len(data), f.Max())], f.delimiter)
	switch {
	case end >= 0:
		return end + len(f.delimiter), data[:end], nil
	case len(data) >= f.Max():
		return 0, nil, fmt.Errorf("%w: no delimiter within %d bytes", codec.ErrFrame, f.max)
	}
	return 0, nil, nil
}
