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
	waiting, waitingBytes int
	// open is how many were taken and aren't settled.
	unsettled int
	// largest is the size of the largest so far.
	largest int
	// full says that further deliveries are skipped, over that the consumer has ended.
	skipping, ended bool
}

func newArrivals(budget *transports.Budget) *arrivals {
	return &arrivals{budget: budget, skipped: make(chan struct{})}
}

// admit reports whether a delivery may be read. A consumer that has no other one may always read one.
func (a *arrivals) admitDelivery() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.skipping && a.waiting+a.unsettled > 0 && a.budget.Full() {
		a.startSkipping()
	}
	if a.skipping || a.ended {
		return false
	}
	a.waiting++
	return true
}

// fill has all further deliveries skipped. The lock is held.
func (a *arrivals) startSkipping() {
	a.skipping = true
	close(a.skipped)
}

// announce counts the size of a delivery that was admitted.
func (a *arrivals) addBytes(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended {
		a.waitingBytes += size
		a.largest = max(a.largest, size)
		a.budget.Add(size)
	}
}

// take moves a delivery from here to those that are open; who takes it counts its bytes from then on.
// It returns false if it is to be left to the broker, since what was taken before fills the budget.
func (a *arrivals) takeDelivery(size int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit := a.budget.Limit(); a.unsettled > 0 && limit > 0 && a.budget.Used()-a.waitingBytes >= limit {
		if !a.skipping {
			a.startSkipping()
		}
		return false
	}
	a.waiting--
	a.waitingBytes -= size
	a.unsettled++
	a.budget.Give(size)
	return true
}

// settle notes that one of the open deliveries is settled, and reports whether that was the last.
func (a *arrivals) settleDelivery() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsettled--
	return a.unsettled == 0
}

// most returns the size of the largest delivery so far.
func (a *arrivals) largestSize() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.largest
}

// idle reports whether nothing is open.
func (a *arrivals) isIdle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unsettled == 0
}

// exhausted reports whether there is nothing to take any more, as all else was skipped.
func (a *arrivals) isExhausted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.skipping && a.waiting == 0
}

// end gives back what nobody takes any more: the channel is closed.
func (a *arrivals) endConsumer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.budget.Give(a.waitingBytes)
	a.waiting, a.waitingBytes, a.ended = 0, 0, true
}

// consumers finds the arrivals of a consumer by its tag.
type consumers struct {
	mu    sync.RWMutex
	byTag map[string]*arrivals
}

func (c *consumers) addConsumer(tag string, a *arrivals) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byTag == nil {
		c.byTag = map[string]*arrivals{}
	}
	c.byTag[tag] = a
}

func (c *consumers) removeConsumer(tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byTag, tag)
}

// find returns nil for a tag that isn't a subscription's, such as a tap's.
func (c *consumers) findArrivals(tag []byte) *arrivals {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byTag[string(tag)]
}
