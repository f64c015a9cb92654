package transports

import (
	"errors"
	"io"
	"sync/atomic"
)

// Memory are the host's budgets of bytes. Each is counted over all transports and pipelines.
type Memory struct {
	// Bodies is for the bodies of requests, as they arrive and until they are answered.
	Bodies *Budget
	// InFlight is for messages that a pipeline has and that aren't settled.
	InFlight *Budget
	// Waiting is for messages that wait inside the host for a pipeline to take them.
	Waiting *Budget
	// Held is for commands that the ledger holds.
	Held *Budget
}

// Budget bounds the bytes of one kind of things that the host has in memory. Whoever keeps such a
// thing takes its bytes from the budget, and gives them back when it is gone. All methods are safe
// for concurrent use. A nil Budget has no limit.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes; 0 is no limit.
func NewBudget(limit int) *Budget { return &Budget{limit: int64(limit)} }

// Take takes n bytes if that many are left. As long as nothing is taken, any n is: something that is
// larger than the whole budget is let in alone.
func (b *Budget) Take(n int) bool { return b.takeMore(0, n) }

// grow takes n bytes for something that has taken own bytes already.
func (b *Budget) takeMore(own, n int) bool {
	if b == nil {
		return true
	}
	for {
		used := b.used.Load()
		if used > int64(own) && !b.hasRoom(used, n) {
			return false
		}
		if b.used.CompareAndSwap(used, used+int64(n)) {
			return true
		}
	}
}

// Fits reports whether Take would take n bytes now.
func (b *Budget) Fits(n int) bool { return b == nil || b.hasRoom(b.used.Load(), n) }

func (b *Budget) hasRoom(used int64, n int) bool {
	return used <= 0 || b.limit <= 0 || used+int64(n) <= b.limit
}

// Add takes n bytes whether or not they are left. A negative n gives bytes back.
func (b *Budget) Add(n int) {
	if b != nil {
		b.used.Add(int64(n))
	}
}

// Give gives n bytes back.
func (b *Budget) Give(n int) { b.Add(-n) }

// Full reports whether nothing is left.
func (b *Budget) Full() bool { return b != nil && b.limit > 0 && b.used.Load() >= b.limit }

// Used returns how many bytes are taken, which may be more than the limit.
func (b *Budget) Used() int {
	if b == nil {
		return 0
	}
	return int(b.used.Load())
}

// Limit returns the limit; 0 is none.
func (b *Budget) Limit() int {
	if b == nil {
		return 0
	}
	return int(b.limit)
}

// ErrNoRoom is why something isn't read: too much of its kind is in memory.
var ErrNoRoom = errors.New("too many bytes are in memory")

// firstRead is how much room a body gets before anything of it has come.
const firstRead = 512

// ReadAll reads r to its end, or until it has most+1 bytes: the caller takes that for too much. It
// takes from the budget what it has room for, as r grows, so that a sender who announces much and
// sends little takes little. The caller gives back taken bytes when body is gone, after an error too.
// The error is [ErrNoRoom], or that of r.
//
// expected is the length that was announced; a negative one is unknown.
func (b *Budget) ReadAll(r io.Reader, expected int64, most int) (body []byte, taken int, err error) {
	for {
		if len(body) == cap(body) {
			// One byte more than what is expected, so that the end is seen without growing again.
			size := max(firstRead, 2*cap(body))
			if expected >= int64(len(body)) {
				size = min(size, int(min(expected, int64(most)))+1)
			}
			size = max(min(size, most+1), len(body)+1)
			if !b.takeMore(taken, size-cap(body)) {
				return body, taken, ErrNoRoom
			}
			taken += size - cap(body)
			grown := make([]byte, len(body), size)
			copy(grown, body)
			body = grown
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case len(body) > most, errors.Is(err, io.EOF):
			return body, taken, nil
		case err != nil:
			return body, taken, err
		}
	}
}
