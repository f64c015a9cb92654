package transports

import (
	"container/list"
	"errors"
	"io"
	"time"
)

// ErrNoRoom means that a body wasn't read because the budget has no bytes left.
var ErrNoRoom = errors.New("the memory budget is used up")

const (
	// firstRead is the room for a body before its first byte has arrived.
	firstRead = 512
	// SmallBody is a size. While the budget is used up, bodies of up to this size displace others,
	// and larger bodies are refused.
	SmallBody = 64 << 10
	// displaceTime is how long the bytes of a displaced body may take to become free.
	displaceTime = time.Second
)

// BodySource is where ReadAll reads a body.
type BodySource struct {
	io.Reader
	// Expected is the announced length; a negative one means unknown.
	Expected int64
	// Interrupt ends a Read that waits. It is called by other goroutines, at most once, and not
	// after ReadAll has returned. It must not block. If it is nil, the body can't be displaced.
	Interrupt func()
}

// bodyReader is one running call of ReadAll. Budget.mu guards displaced.
type bodyReader struct {
	interrupt func()
	place     *list.Element // in Budget.readers; nil if it isn't there
	displaced bool
	gone      chan struct{} // closed when ReadAll has returned
}

// ReadAll reads a body to its end. The limit is most bytes. If the body has more, ReadAll stops
// after most+1 bytes, and the caller rejects the body.
//
// ReadAll takes bytes from the budget as the body grows. So a sender that announces a large body
// and sends little takes little. The caller gives the taken bytes back when it no longer needs the
// body, and also after an error. The error is [ErrNoRoom] or the error of the Reader.
//
// A sender that stops in the middle of a body would keep its bytes. So while the budget is used
// up, a body of up to [SmallBody] bytes displaces the body that is being read for the longest
// time. That call of ReadAll returns ErrNoRoom.
func (b *Budget) ReadAll(from BodySource, most int) (body []byte, taken int, err error) {
	me := b.addReader(from.Interrupt)
	defer func() {
		if b.removeReader(me) && err != nil {
			b.Give(taken) // before gone is closed, so that the other body finds the bytes free
			body, taken, err = nil, 0, ErrNoRoom
		}
		close(me.gone)
	}()
	for {
		if len(body) == cap(body) {
			// One byte more than expected, so that the end is found without growing the buffer.
			size := max(firstRead, 2*cap(body))
			if from.Expected >= int64(len(body)) {
				size = min(size, int(min(from.Expected, int64(most)))+1)
			}
			size = max(min(size, most+1), len(body)+1)
			if !b.takeForBody(me, taken, size-cap(body)) {
				return body, taken, ErrNoRoom
			}
			taken += size - cap(body)
			grown := make([]byte, len(body), size)
			copy(grown, body)
			body = grown
		}
		n, err := from.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > most, errors.Is(err, io.EOF):
			return body, taken, nil
		case err != nil:
			return body, taken, err
		}
	}
}

// takeForBody takes n more bytes for a body that has taken own bytes. If there is no room, it
// displaces other bodies.
func (b *Budget) takeForBody(me *bodyReader, own, n int) bool {
	for !b.takeMore(own, n) {
		if own+n > SmallBody {
			return false
		}
		gone := b.displaceOldest(me)
		if gone == nil {
			return false
		}
		select {
		case <-gone:
		case <-time.After(displaceTime):
			return false
		}
	}
	return true
}

// displaceOldest interrupts the body that is being read for the longest time, other than me. It
// returns a channel that is closed when that ReadAll has returned, or nil if there is no such
// body.
func (b *Budget) displaceOldest(me *bodyReader) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	oldest := b.readers.Front()
	if oldest != nil && oldest == me.place {
		oldest = oldest.Next()
	}
	if oldest == nil {
		return nil
	}
	r := b.readers.Remove(oldest).(*bodyReader)
	r.place, r.displaced = nil, true
	r.interrupt()
	return r.gone
}

func (b *Budget) addReader(interrupt func()) *bodyReader {
	r := &bodyReader{interrupt: interrupt, gone: make(chan struct{})}
	if b != nil && interrupt != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		r.place = b.readers.PushBack(r)
	}
	return r
}

// removeReader removes a reader that is done, and reports whether it was displaced.
func (b *Budget) removeReader(r *bodyReader) bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.place != nil {
		b.readers.Remove(r.place)
		r.place = nil
	}
	return r.displaced
}
