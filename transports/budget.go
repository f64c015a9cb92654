package transports

import (
	"container/list"
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

	mu sync.Mutex
	// readers has the calls of ReadAll that can be displaced, the oldest first.
	readers list.List
}

// NewBudget returns a budget of limit bytes; 0 means no limit.
func NewBudget(limit int) *Budget { return &Budget{limit: int64(limit)} }

// Take takes n bytes if the budget has that many left. If nothing is taken yet, Take takes any n.
// So a thing that is larger than the whole budget fits while it is the only one.
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

// RecheckTime is how long a user of a budget waits for room before it checks again. The budget
// doesn't signal that others have given bytes back.
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
