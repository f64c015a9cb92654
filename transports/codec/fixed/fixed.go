// Package fixed is the codec for payloads that all have the same size.
//
//	framing = { type = "fixed", size = 16 }
package fixed

import (
	"fmt"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the fixed codec's configuration.
type Config struct {
	Size int `toml:"size" doc:"The size of every payload, in both directions." unit:"bytes" required:"true" min:"1" max:"16777216" example:"16"`
}

func init() {
	codec.Register(codec.Plugin{
		Name:        "fixed",
		Summary:     "Payloads of one fixed size.",
		Description: "A command with a payload of another size is rejected; the codec pads nothing.",
		Config:      func() codec.Config { return &Config{} },
	})
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	if c.Size < 1 {
		return nil, codec.Invalid("size", "%d is not at least 1", c.Size)
	}
	return framing(c.Size), nil
}

type framing int

func (f framing) Max() int { return int(f) }

func (f framing) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) != int(f) {
		return dst, fmt.Errorf("%w: it has %d bytes, every frame has %d", codec.ErrPayload, len(payload), int(f))
	}
	return append(dst, payload...), nil
}

func (f framing) Split(data []byte, _ int) (int, []byte, error) {
	if len(data) < int(f) {
		return 0, nil, nil
	}
	return int(f), data[:f], nil
}
