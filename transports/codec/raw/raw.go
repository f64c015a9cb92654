// Package raw is the codec for streams without frames. It writes payloads unchanged, and each read
// is a payload.
//
//	framing = "raw"
//
// TCP has no message boundaries, so payloads that are read can be split or joined at any byte.
package raw

import (
	"fmt"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the raw codec's configuration.
type Config struct {
	Max int `toml:"max" doc:"The largest payload in either direction. A longer read becomes several payloads." unit:"bytes" min:"1" max:"16777216" example:"4096"`
}

var defaults = Config{Max: 4096}

func init() {
	codec.Register(codec.Plugin{
		Name:    "raw",
		Summary: "Bytes without frames.",
		Description: "A payload is written unchanged; an empty one is rejected. Each read from the connection is a payload. " +
			"So a device's message may arrive as several payloads, and several messages as one.",
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

func (f framing) Split(data []byte, _ int) (int, []byte, error) {
	if len(data) == 0 {
		return 0, nil, nil
	}
	n := min(len(data), int(f))
	return n, data[:n], nil
}
