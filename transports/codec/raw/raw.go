// Package raw is for streams without frames: bytes go out as they are, and each read is a payload.
//
//	framing = "raw"
//
// Where one payload ends and the next begins is chance, as TCP keeps no boundaries.
package raw

import (
	"fmt"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the raw codec's configuration.
type Config struct {
	Max int `toml:"max" doc:"The largest payload in either direction; a longer read becomes several." unit:"bytes" min:"1" max:"16777216" example:"4096"`
}

var defaults = Config{Max: 4096}

func init() {
	codec.Register(codec.Plugin{
		Name:    "raw",
		Summary: "Bytes as they are, without frames.",
		Description: "A payload is written as it is; an empty one has no bytes and is rejected. What a read finds is a payload, so a " +
			"device's message may come in several, and several in one.",
		Config: func() codec.Config {
			c := defaults
			return &c
		},
	})
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	if c.Max < 1 {
		return nil, codec.Invalid("max", "%d is not at least 1", c.Max)
	}
	return framing(c.Max), nil
}

type framing int

func (f framing) Max() int { return int(f) }

func (f framing) Append(dst, payload []byte) ([]byte, error) {
	switch {
	case len(payload) == 0:
		return dst, fmt.Errorf("%w: it is empty", codec.ErrPayload)
	case len(payload) > int(f):
		return dst, fmt.Errorf("%w: %d bytes are more than %d", codec.ErrPayload, len(payload), int(f))
	}
	return append(dst, payload...), nil
}

func (f framing) Split(data []byte) (int, []byte, error) {
	if len(data) == 0 {
		return 0, nil, nil
	}
	n := min(len(data), int(f))
	return n, data[:n], nil
}
