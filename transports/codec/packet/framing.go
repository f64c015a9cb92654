package packet

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/pentrough/pentrough/transports/codec"
)

type framing struct {
	// in has the kinds that devices send, and out those that the host sends, in order.
	in, out []*kind
	// longest is the size of the longest start in in.
	longest int
	resync  bool
	max     int
}

var _ codec.Kinds = (*framing)(nil)

// shownBytes is the largest number of bytes that an error shows.
const shownBytes = 8

func (f *framing) Max() int { return f.max }

func (f *framing) Split(data []byte, seen int) (int, []byte, error) {
	advance, payload, _, err := f.SplitKind(data, seen)
	return advance, payload, err
}

// SplitKind implements codec.Kinds.
func (f *framing) SplitKind(data []byte, seen int) (int, []byte, string, error) {
	if seen < f.longest {
		// The earlier call may not have known the kind. Then it didn't search for the end.
		seen = 0
	}
	size, err := 0, error(nil)
	k, none := f.choose(data)
	if k != nil {
		size, err = k.measure(data[:min(len(data), f.max)], seen, f.max)
	}
	switch {
	case none && f.resync:
		return f.nextStart(data), nil, "", nil
	case none:
		return 0, nil, "", fmt.Errorf("%w: no kind of frame starts with % x", codec.ErrFrame, data[:min(len(data), shownBytes)])
	case err != nil && f.resync:
		return f.nextStart(data), nil, "", nil
	case err != nil:
		return 0, nil, "", fmt.Errorf("%w: %w", codec.ErrFrame, err)
	case size > 0:
		return k.open(data[:size])
	case len(data) >= f.max:
		return 0, nil, "", fmt.Errorf("%w: a frame%s has no end within %d bytes", codec.ErrFrame, k.of(), f.max)
	}
	return 0, nil, "", nil
}

// choose returns the kind of the frame at the beginning of data. It returns nil and true if no
// kind has this start, and nil and false if more bytes are needed to choose.
func (f *framing) choose(data []byte) (k *kind, none bool) {
	for _, k := range f.in {
		n := min(len(data), len(k.starts))
		switch {
		case !bytes.Equal(data[:n], k.starts[:n]):
		case n < len(k.starts):
			return nil, false
		default:
			return k, false
		}
	}
	return nil, true
}

// nextStart returns the number of bytes before the next place at which a frame may start. It skips
// at least one byte.
func (f *framing) nextStart(data []byte) int {
	for i := 1; i < len(data); i++ {
		if _, none := f.choose(data[i:]); !none {
			return i
		}
	}
	return len(data)
}

// Append implements codec.Framing.
func (f *framing) Append(dst, payload []byte) ([]byte, error) {
	err := errors.New("no kind of frame may be sent")
	for _, k := range f.out {
		var out []byte
		if out, err = k.append(dst, payload, f.max); err == nil {
			err = f.verify(k, out[len(dst):])
		}
		if err == nil {
			return out, nil
		}
	}
	return dst, fmt.Errorf("%w: %w", codec.ErrPayload, err)
}

// verify returns an error if a reader would read anything but this frame of kind k.
func (f *framing) verify(k *kind, frame []byte) error {
	if k.in {
		if read, _ := f.choose(frame); read != k {
			return fmt.Errorf("a reader would take the frame%s for one%s", k.of(), read.of())
		}
	}
	if !k.measured {
		return nil
	}
	switch size, err := k.measure(frame, 0, f.max); {
	case err != nil:
		return err
	case size == 0:
		return fmt.Errorf("a reader of the frame%s would wait for more than its %d bytes", k.of(), len(frame))
	case size != len(frame):
		return fmt.Errorf("a reader would end the frame%s after %d of its %d bytes", k.of(), size, len(frame))
	}
	return nil
}
