package transports

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Memory has the host's byte budgets. Each is shared by all transports and pipelines.
type Memory struct {
	// Bodies is for the bodies of requests, from their arrival until they are answered.
	Bodies *Budget
	// InFlight is for the unsettled messages of pipelines.
	InFlight *Budget
	// Waiting is for messages that wait inside the host for a pipeline.
	Waiting *Budget
	// Held is for held commands.
	Held *Budget
}

// Budget limits the memory that one kind of things may use, in bytes. A user takes bytes from the
// budget when it gets such a thing, and gives them back when the thing is gone. All methods are
// safe for concurrent use. A nil Budget has no limit.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes; 0 means no limit.
func NewBudget(limit int) *Budget { return &Budget{limit: int64(limit)} }

// Take takes n bytes if the budget has that many left. If nothing is taken, it takes any n, so a
// thing that is larger than the whole budget can be the only one.
func (b *Budget) Take(n int) bool { return b.takeMore(0, n) }

// takeMore takes n more bytes for a thing that has taken own bytes already.
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

// Fits reports whether Take(n) would succeed now.
func (b *Budget) Fits(n int) bool { return b == nil || b.hasRoom(b.used.Load(), n) }

func (b *Budget) hasRoom(used int64, n int) bool {
	return used <= 0 || b.limit <= 0 || used+int64(n) <= b.limit
}

// Add takes n bytes even if fewer are left. A negative n gives bytes back.
func (b *Budget) Add(n int) {
	if b != nil {
		b.used.Add(int64(n))
	}
}

// Give gives n bytes back.
func (b *Budget) Give(n int) { b.Add(-n) }

// Full reports whether no bytes are left.
func (b *Budget) Full() bool { return b != nil && b.limit > 0 && b.used.Load() >= b.limit }

// Used returns how many bytes are taken. It can be more than the limit.
func (b *Budget) Used() int {
	if b == nil {
		return 0
	}
	return int(b.used.Load())
}

// Limit returns the limit; 0 means none.
func (b *Budget) Limit() int {
	if b == nil {
		return 0
	}
	return int(b.limit)
}

// RecheckTime is how long a user of a budget waits for room before it looks again. Nothing tells
// it that others have given bytes back.
const RecheckTime = 100 * time.Millisecond

// WaitForRoom is c.Wait for a caller that waits for room in a budget: it returns after
// [RecheckTime] at the latest.
func WaitForRoom(c *sync.Cond) {
	again := time.AfterFunc(RecheckTime, func() {
		c.L.Lock()
		defer c.L.Unlock()
		c.Broadcast()
	})
	defer again.Stop()
	c.Wait()
}

// ErrNoRoom means that a body wasn't read because the budget has no bytes left.
var ErrNoRoom = errors.New("the memory budget is used up")

// firstRead is the room for a body before its first byte has arrived.
const firstRead = 512

// ReadAll reads r to its end. If r has more than most bytes, it stops after most+1, and the caller
// rejects the body.
//
// ReadAll takes bytes from the budget as the body grows. So a sender that announces a large body
// and sends little takes little. The caller gives taken bytes back when the body is gone, and
// after an error, too. The error is [ErrNoRoom] or the error of r.
//
// expected is the announced length; a negative one means unknown.
func (b *Budget) ReadAll(r io.Reader, expected int64, most int) (body []byte, taken int, err error) {
	for {
		if len(body) == cap(body) {
			// One byte more than expected, so that the end is found without growing the buffer.
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
