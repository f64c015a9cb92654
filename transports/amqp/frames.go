package amqp

import (
	"encoding/binary"
	"io"
)

// The AMQP library reads a connection through frames. It changes or drops some of the frames that
// the broker sends, before the library reads them.
//
// It changes messages whose headers the library can't read. The library treats such a message as a
// broken connection. The broker would redeliver the message on each new connection, so that a
// single message would stop the host for good. frames replaces its headers by an empty table.
//
// It drops deliveries that the byte budget doesn't admit (arrivals.go).
//
// A delivery is a method frame with the consumer's tag, a header frame with the body's size and
// the properties, and body frames. All of them carry the number of the channel. For each channel,
// arriving says whether the frames that follow belong to an admitted delivery, to a skipped one,
// or to another method (no entry).
//
// Invariants: bytes from r to r+passBytes are checked and go to the library as they are. passBytes
// is 0 between two frames. One goroutine, the library's reader, calls Read, so there is no lock
// here; admitDelivery and addBytes lock arrivals.mu.

// maxDepth and maxElements are the library's limits on headers: how deep tables may be nested, and
// how many fields a table or array may have.
const (
	maxDepth    = 32
	maxElements = 8192
)

const (
	methodFrame = 1
	headerFrame = 2
	bodyFrame   = 3
	// basicDeliver is the class and method of a delivery. The consumer's tag follows it.
	basicDeliver = 60<<16 | 60
	// sizeAt is where a header frame has the body's size, after the class and the weight.
	sizeAt = frameStart + 4
	// frameStart is the size of a frame's type, channel and payload size. One byte ends a frame.
	frameStart = 7
	// propertiesAt is where the properties of a header frame begin, after its class, weight, body
	// size and flags.
	propertiesAt = frameStart + 14

	hasContentType     = 0x8000
	hasContentEncoding = 0x4000
	hasHeaders         = 0x2000
)

// frames reads a broker's frames. It empties header tables that the library can't read, and skips
// the deliveries that aren't admitted.
type frames struct {
	src io.Reader
	// onEmptied is called for each message that lost its headers.
	onEmptied func()
	// consumers finds the arrivals of a delivery. If it is nil, no delivery is counted or skipped.
	consumers *consumers
	// arriving has the delivery that each channel is reading. It is nil for a delivery that is
	// skipped.
	arriving map[uint16]*arrivals

	// buf has the bytes from r to w: they are read from src and not passed on.
	buf  []byte
	r, w int
	// passBytes is how many of the next bytes are passed on without another check.
	passBytes int
}

// frameBuffer is large enough for many small frames, which saves system calls.
const frameBuffer = 64 << 10

func newFrames(src io.Reader, emptied func(), c *consumers) *frames {
	return &frames{src: src, onEmptied: emptied, consumers: c, arriving: map[uint16]*arrivals{}, buf: make([]byte, frameBuffer)}
}

// Read passes the next bytes of the broker to the library.
func (f *frames) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if f.passBytes == 0 {
		if err := f.readNextFrame(); err != nil {
			return 0, err
		}
	}
	if f.r == f.w {
		if err := f.fillBuffer(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.buf[f.r:min(f.w, f.r+f.passBytes)])
	f.r += n
	f.passBytes -= n
	return n, nil
}

// readNextFrame reads frames until one can be passed on. It changes that frame if its headers
// aren't readable.
func (f *frames) readNextFrame() error {
	for {
		if err := f.fillBuffer(frameStart); err != nil {
			return err
		}
		size := frameStart + int(binary.BigEndian.Uint32(f.buf[f.r+3:])) + 1
		if size > 2*frameSize {
			break
		}
		if skip, err := f.isSkipped(size); err != nil {
			return err
		} else if !skip {
			break
		}
		if err := f.discardBytes(size); err != nil {
			return err
		}
	}
	start := f.buf[f.r:]
	size := int(binary.BigEndian.Uint32(start[3:]))
	f.passBytes = frameStart + size + 1
	// The library refuses a frame that is larger than the agreed size.
	if start[0] != headerFrame || f.passBytes > 2*frameSize {
		return nil
	}
	if err := f.fillBuffer(f.passBytes); err != nil {
		return err
	}
	frame := f.buf[f.r : f.r+f.passBytes]
	from, to, ok := headersIn(frame[:len(frame)-1])
	if !ok || readableTable(frame[from+4:to], 0) {
		return nil
	}
	// Replace the table by an empty one, which makes the frame shorter.
	f.onEmptied()
	clear(frame[from : from+4])
	gone := to - from - 4
	binary.BigEndian.PutUint32(frame[3:], uint32(size-gone))
	copy(frame[gone:], frame[:from+4])
	f.r += gone
	f.passBytes -= gone
	return nil
}

// isSkipped reports whether the frame of size bytes at f.r belongs to a skipped delivery. It asks
// for admission at the first frame of each delivery, and counts the size of admitted ones.
func (f *frames) isSkipped(size int) (skip bool, err error) {
	if f.consumers == nil {
		return false, nil
	}
	channel := binary.BigEndian.Uint16(f.buf[f.r+1:])
	switch kind := f.buf[f.r]; kind {
	case methodFrame:
		if err := f.fillBuffer(size); err != nil {
			return false, err
		}
		delete(f.arriving, channel)
		a := f.deliveryIn(f.buf[f.r : f.r+size-1])
		if a == nil {
			return false, nil
		}
		if !a.admitDelivery() {
			a = nil
		}
		f.arriving[channel] = a
		return a == nil, nil
	case headerFrame, bodyFrame:
		a, counted := f.arriving[channel]
		if kind == headerFrame && a != nil && size > sizeAt+8 {
			if err := f.fillBuffer(sizeAt + 8); err != nil {
				return false, err
			}
			a.addBytes(int(binary.BigEndian.Uint64(f.buf[f.r+sizeAt:])))
		}
		return counted && a == nil, nil
	}
	return false, nil
}

// deliveryIn returns the arrivals of the consumer that a method frame delivers to. It returns nil
// for other frames and other consumers.
func (f *frames) deliveryIn(frame []byte) *arrivals {
	const tagAt = frameStart + 4
	if len(frame) <= tagAt || binary.BigEndian.Uint32(frame[frameStart:]) != basicDeliver {
		return nil
	}
	end := tagAt + 1 + int(frame[tagAt])
	if end > len(frame) {
		return nil
	}
	return f.consumers.findArrivals(frame[tagAt+1 : end])
}

// discardBytes reads n bytes and drops them.
func (f *frames) discardBytes(n int) error {
	for n > 0 {
		if f.r == f.w {
			if err := f.fillBuffer(1); err != nil {
				return err
			}
		}
		gone := min(n, f.w-f.r)
		f.r += gone
		n -= gone
	}
	return nil
}

// fillBuffer reads until n bytes are in the buffer at f.r.
func (f *frames) fillBuffer(n int) error {
	if f.w-f.r >= n {
		return nil
	}
	if f.r > 0 {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if n > len(f.buf) {
		f.buf = append(f.buf, make([]byte, n-len(f.buf))...)
	}
	for f.w < n {
		m, err := f.src.Read(f.buf[f.w:])
		f.w += m
		if err != nil && f.w < n {
			return err
		}
	}
	return nil
}

// headersIn finds the header table in a header frame. Its four length bytes begin at from, and it
// ends before to.
func headersIn(frame []byte) (from, to int, ok bool) {
	if len(frame) < propertiesAt {
		return 0, 0, false
	}
	flags := binary.BigEndian.Uint16(frame[propertiesAt-2:])
	if flags&hasHeaders == 0 {
		return 0, 0, false
	}
	at := propertiesAt
	for _, flag := range []uint16{hasContentType, hasContentEncoding} {
		if flags&flag != 0 {
			if at >= len(frame) {
				return 0, 0, false
			}
			at += 1 + int(frame[at])
		}
	}
	if at+4 > len(frame) {
		return 0, 0, false
	}
	to = at + 4 + int(binary.BigEndian.Uint32(frame[at:]))
	return at, to, to <= len(frame)
}

// readableTable reports whether the library can read the content of a table.
func readableTable(b []byte, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for n := 0; len(b) > 0; n++ {
		name := 1 + int(b[0])
		if n >= maxElements || name > len(b) {
			return false
		}
		var ok bool
		if b, ok = skipField(b[name:], depth); !ok {
			return false
		}
	}
	return true
}

// readableArray reports whether the library can read the content of an array.
func readableArray(b []byte, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for n := 0; len(b) > 0; n++ {
		var ok bool
		if b, ok = skipField(b, depth); !ok || n >= maxElements {
			return false
		}
	}
	return true
}

// skipField returns the bytes after the field that begins b. It returns false if the library can't
// read that field.
func skipField(b []byte, depth int) (rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, false
	}
	kind, b := b[0], b[1:]
	size := 0
	switch kind {
	case 'V':
	case 't', 'b', 'B':
		size = 1
	case 's', 'u':
		size = 2
	case 'I', 'i', 'f':
		size = 4
	case 'D':
		size = 5
	case 'l', 'd', 'T':
		size = 8
	case 'S', 'x', 'A', 'F':
		if len(b) < 4 {
			return nil, false
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if uint64(n) > uint64(len(b)) {
			return nil, false
		}
		size = int(n)
		if kind == 'A' && !readableArray(b[:size], depth+1) || kind == 'F' && !readableTable(b[:size], depth+1) {
			return nil, false
		}
	default:
		return nil, false
	}
	if size > len(b) {
		return nil, false
	}
	return b[size:], true
}
