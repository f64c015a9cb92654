// Package length is the codec for payloads with their length before them.
//
//	framing = { type = "length", size = 2 }
//	framing = { type = "length", size = 4, endian = "little", includes_header = true, max = 65536 }
package length

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/pentrough/pentrough/transports/codec"
)

// Config is the length codec's configuration.
type Config struct {
	Size           int    `toml:"size" doc:"The size of the length before each payload: 1, 2, 4 or 8." unit:"bytes" min:"1" max:"8" example:"2"`
	Endian         string `toml:"endian" doc:"The byte order of the length." enum:"big,little" example:"\"big\""`
	IncludesHeader bool   `toml:"includes_header" doc:"Whether the length includes its own bytes." example:"false"`
	Max            int    `toml:"max" doc:"The longest payload in either direction. If the length field can't store this value, the limit is lower." unit:"bytes" min:"1" max:"16777216" example:"4096"`
}

var defaults = Config{Size: 2, Endian: "big", Max: 4096}

func init() {
	codec.Register(codec.Plugin{
		Name:    "length",
		Summary: "Payloads after a length of 1, 2, 4 or 8 bytes.",
		Description: "A command with a payload longer than `max` is rejected. A device that sends a greater length is " +
			"disconnected at once, before the payload arrives.",
		Config: func() codec.Config {
			c := defaults
			return &c
		},
	})
}

// Validate checks the size of the length.
func (c *Config) Validate() error {
	var problems []error
	if !slices.Contains([]int{1, 2, 4, 8}, c.Size) {
		problems = append(problems, codec.Invalid("size", "%d must be 1, 2, 4 or 8", c.Size))
	}
	if c.Endian != "big" && c.Endian != "little" {
		problems = append(problems, codec.Invalid("endian", "%q is neither big nor little", c.Endian))
	}
	return errors.Join(problems...)
}

// New builds the framing.
func (c *Config) New() (codec.Framing, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	f := framing{size: c.Size, max: c.Max, order: binary.BigEndian}
	if c.Endian == "little" {
		f.order = binary.LittleEndian
	}
	if c.IncludesHeader {
		f.counted = c.Size
	}
	largest := uint64(math.MaxUint64) >> (64 - 8*c.Size)
	f.max = int(min(uint64(f.max), largest-uint64(f.counted)))
	return f, nil
}

type framing struct {
	size    int
	counted int // how many bytes of the length itself are included in it
	max     int
	order   binary.ByteOrder
}

func (f framing) Max() int { return f.size + f.max }

func (f framing) Append(dst, payload []byte) ([]byte, error) {
	if len(payload) > f.max {
		return dst, fmt.Errorf("%w: %d bytes are more than a frame's %d", codec.ErrPayload, len(payload), f.max)
	}
	var header [8]byte
	n := uint64(len(payload) + f.counted)
	switch f.size {
	case 1:
		header[0] = byte(n)
	case 2:
		f.order.PutUint16(header[:], uint16(n))
	case 4:
		f.order.PutUint32(header[:], uint32(n))
	default:
		f.order.PutUint64(header[:], n)
	}
	return append(append(dst, header[:f.size]...), payload...), nil
}

func (f framing) Split(data []byte, _ int) (int, []byte, error) {
	if len(data) < f.size {
		return 0, nil, nil
	}
	var n uint64
	switch f.size {
	case 1:
		n = uint64(data[0])
	case 2:
		n = uint64(f.order.Uint16(data))
	case 4:
		n = uint64(f.order.Uint32(data))
	default:
		n = f.order.Uint64(data)
	}
	switch counted := uint64(f.counted); {
	case n < counted:
		return 0, nil, fmt.Errorf("%w: a length of %d is smaller than the length field itself", codec.ErrFrame, n)
	case n-counted > uint64(f.max):
		return 0, nil, fmt.Errorf("%w: a length of %d is over the limit of %d", codec.ErrFrame, n, f.max)
	case n-counted > uint64(len(data)-f.size):
		return 0, nil, nil
	}
	end := f.size + int(n) - f.counted
	return end, data[f.size:end], nil
}
