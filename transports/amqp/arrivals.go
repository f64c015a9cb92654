package amqp

import (
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// A broker counts a consumer's window in messages, and the library keeps all that it has read until it
// is taken. So the reader of a connection looks at each delivery before the library does. Once the
// budget of bytes in flight is full, it skips all further deliveries of a consumer that has others:
// the library doesn't see them, and to the broker they are unacked. The subscription then settles
// what it has, closes the channel, so that the broker takes back what was skipped, and consumes with
// a smaller prefetch.

// arrivals are a consumer's deliveries between the connection's reader and the subscription.
type arrivals struct {
	budget *transports.Budget
	// skipped is closed when the first delivery was skipped.
	skipped chan struct{}

	mu sync.Mutex
	// count and size are of deliveries that were read, at least in part, and aren't taken yet.
	count, size int
	// open is how many were taken and aren't settled.
	open int
	// largest is the size of the largest so far.
	largest int
	// full says that further deliveries are skipped, over that the consumer has ended.
	full, over bool
}

func newArrivals(budget *transports.Budget) *arrivals {
	return &arrivals{budget: budget, skipped: make(chan struct{})}
}

// admit reports whether a delivery may be read. A consumer that has no other one may always read one.
func (a *arrivals) admit() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.full && a.count+a.open > 0 && a.budget.Full() {
		a.fill()
	}
	if a.full || a.over {
		return false
	}
	a.count++
	return true
}

// fill has all further deliveries skipped. The lock is held.
func (a *arrivals) fill() {
	a.full = true
	close(a.skipped)
}

// announce counts the size of a delivery that was admitted.
func (a *arrivals) announce(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.size += size
		a.largest = max(a.largest, size)
		a.budget.Add(size)
	}
}

// take moves a delivery from here to those that are open; who takes it counts its bytes from then on.
// It returns false if it is to be left to the broker, since what was taken before fills the budget.
func (a *arrivals) take(size int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit := a.budget.Limit(); a.open > 0 && limit > 0 && a.budget.Used()-a.size >= limit {
		if !a.full {
			a.fill()
		}
		return false
	}
	a.count--
	a.size -= size
	a.open++
	a.budget.Give(size)
	return true
}

// settle notes that one of the open deliveries is settled, and reports whether that was the last.
func (a *arrivals) settle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
	return a.open == 0
}

// most returns the size of the largest delivery so far.
func (a *arrivals) most() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.largest
}

// idle reports whether nothing is open.
func (a *arrivals) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open == 0
}

// exhausted reports whether there is nothing to take any more, as all else was skipped.
func (a *arrivals) exhausted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.full && a.count == 0
}

// end gives back what nobody takes any more: the channel is closed.
func (a *arrivals) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.budget.Give(a.size)
	a.count, a.size, a.over = 0, 0, true
}

// consumers finds the arrivals of a consumer by its tag.
type consumers struct {
	mu    sync.RWMutex
	byTag map[string]*arrivals
}

func (c *consumers) add(tag string, a *arrivals) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byTag == nil {
		c.byTag = map[string]*arrivals{}
	}
	c.byTag[tag] = a
}

func (c *consumers) remove(tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byTag, tag)
}

// find returns nil for a tag that isn't a subscription's, such as a tap's.
func (c *consumers) find(tag []byte) *arrivals {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byTag[string(tag)]
}
