package packet

import (
	"bytes"
	"fmt"

	"github.com/pentrough/pentrough/internal/byteexpr"
	"github.com/pentrough/pentrough/transports/codec"
)

// kind is one kind of frames.
type kind struct {
	name         string
	in, out      bool
	starts, ends []byte
	escape       *escape
	check        *checker

	// One of size, length and expression gives the size of a frame. If all three are unset, the
	// frame ends where the bytes ends occur first. If ends is unset, too, measured is false.
	size       int
	length     *length
	expression *byteexpr.Program
	measured   bool

	// head is the number of bytes before the payload: the start, and a length that follows it.
	head int
	// min is the size of the smallest frame.
	min int
}

// length is a length field.
type length struct {
	number
	at   int
	add  int
	mask uint64
}

// checker verifies and writes the check of a frame.
type checker struct {
	of     func([]byte) uint32
	from   int // where the checked bytes begin in the frame
	number number
	wrong  string
}

// ok reports whether field is the check of data.
func (c *checker) ok(data, field []byte) bool {
	n, ok := c.number.read(field)
	return ok && n == uint64(c.of(data))
}

// of returns the kind's name as a part of an error text.
func (k *kind) of() string {
	if k == nil || k.name == "" {
		return ""
	}
	return fmt.Sprintf(" of kind %q", k.name)
}

// measure returns the size of the frame at the beginning of data, or 0 if it needs more bytes. An
// earlier call has returned 0 for the first seen bytes.
func (k *kind) measure(data []byte, seen, limit int) (int, error) {
	size := k.size
	switch {
	case size > 0:
	case k.length != nil:
		l := k.length
		if len(data) < l.at+l.number.size {
			return 0, nil
		}
		field := data[l.at : l.at+l.number.size]
		n, ok := l.read(field)
		if !ok {
			return 0, fmt.Errorf("the length of a frame%s is %q, which isn't a number", k.of(), field)
		}
		size = int(n&l.mask) + l.add
	case k.expression != nil:
		n, ok := k.expression.Size(data)
		if !ok {
			return 0, nil
		}
		size = n
	default:
		from := min(len(data), max(len(k.starts), seen-len(k.ends)+1))
		i := bytes.Index(data[from:], k.ends)
		if i < 0 {
			return 0, nil
		}
		size = from + i + len(k.ends)
	}
	switch {
	case size < k.min || size > limit:
		return 0, fmt.Errorf("a frame%s of %d bytes; allowed: from %d to %d", k.of(), size, k.min, limit)
	case size > len(data):
		return 0, nil
	case !bytes.HasSuffix(data[:size], k.ends):
		return 0, fmt.Errorf("a frame%s of %d bytes doesn't end with % x", k.of(), size, k.ends)
	}
	return size, nil
}

// open returns the payload of a whole frame, as SplitKind does. It removes the escapes in place.
func (k *kind) open(frame []byte) (int, []byte, string, error) {
	rest := frame[:len(frame)-len(k.ends)]
	if k.escape != nil {
		rest = k.escape.remove(rest, len(k.starts))
	}
	c := k.check
	if c == nil {
		return len(frame), rest[k.head:], k.name, nil
	}
	at := len(rest) - c.number.size
	whole := at >= max(k.head, c.from)
	switch {
	case whole && (c.ok(rest[c.from:at], rest[at:]) || c.wrong == wrongAccept):
		return len(frame), rest[k.head:at], k.name, nil
	case c.wrong != wrongClose:
		return len(frame), nil, "", nil
	case !whole:
		return len(frame), nil, "", fmt.Errorf("%w: a frame%s is too short for its check", codec.ErrFrame, k.of())
	}
	return len(frame), nil, "", fmt.Errorf("%w: a frame%s has the check % x; expected: %x", codec.ErrFrame, k.of(), rest[at:], c.of(rest[c.from:at]))
}

// append appends a frame to dst. The result may be a frame that readers don't understand.
func (k *kind) append(dst, payload []byte, limit int) ([]byte, error) {
	size := k.head + len(payload) + len(k.ends)
	if k.check != nil {
		size += k.check.number.size
	}
	if size < k.min || size > limit {
		return nil, fmt.Errorf("a frame%s of %d bytes; allowed: from %d to %d", k.of(), size, k.min, limit)
	}
	start := len(dst)
	dst = append(dst, k.starts...)
	if k.head > len(k.starts) {
		l := k.length
		n := size - l.add
		if n < 0 || uint64(n) > l.largest() || uint64(n)&^l.mask != 0 {
			return nil, fmt.Errorf("the length %d of a frame%s doesn't fit into its field", n, k.of())
		}
		dst = l.append(dst, uint64(n))
	}
	dst = append(dst, payload...)
	if c := k.check; c != nil {
		dst = c.number.append(dst, uint64(c.of(dst[start+c.from:])))
	}
	if k.escape != nil {
		dst = k.escape.add(dst, start+len(k.starts))
	}
	dst = append(dst, k.ends...)
	if n := len(dst) - start; n > limit {
		return nil, fmt.Errorf("a frame%s of %d bytes with its escapes; allowed: up to %d", k.of(), n, limit)
	}
	return dst, nil
}
