package amqp

import (
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// A byte budget bounds the memory that unsettled messages take.
//
// The broker knows a consumer's window as a number of messages, and not as bytes. The AMQP library
// reads all deliveries that the broker sends. So the reader of a connection (frames.go) sees each
// delivery before the library does, and asks admitDelivery about it.
//
// A consumer has three states:
//
//   - It reads: each delivery is admitted and counted.
//   - It skips: the budget was full when a further delivery came. The library doesn't see that
//     delivery or any later one, and to the broker they are unacked. A consumer begins to skip
//     only if it has another delivery, so a single large message always gets through.
//   - It has ended: the channel is closed, and the broker requeues what was skipped.
//
// When a consumer skips, its generation settles the deliveries that it has and ends. The next
// generation has a smaller prefetch (prefetch.go).
//
// A delivery that was admitted is waiting until takeDelivery, then unsettled until settleDelivery.
//
// Invariants: the bytes of waiting deliveries are counted here, in waitingBytes and in the budget.
// The pipeline counts the bytes of unsettled deliveries. mu guards all fields. The budget has its
// own lock, which may be taken while mu is locked.

// arrivals counts the deliveries of one consumer that aren't settled.
type arrivals struct {
	budget *transports.Budget
	// skipped is closed when the consumer skips its first delivery.
	skipped chan struct{}

	mu sync.Mutex
	// waiting and waitingBytes are the number and size of deliveries that are admitted and not
	// taken.
	waiting, waitingBytes int
	// unsettled is the number of deliveries that are taken and not settled.
	unsettled int
	// largest is the size of the largest delivery so far.
	largest int
	// skipping says that the reader skips further deliveries. ended says that the consumer has
	// ended.
	skipping, ended bool
}

func newArrivals(budget *transports.Budget) *arrivals {
	return &arrivals{budget: budget, skipped: make(chan struct{})}
}

// admitDelivery reports whether the library may see a delivery. If the consumer has no other
// delivery, the answer is always yes.
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

// startSkipping makes the reader skip all further deliveries. The caller has locked mu.
func (a *arrivals) startSkipping() {
	a.skipping = true
	close(a.skipped)
}

// addBytes counts the size of an admitted delivery.
func (a *arrivals) addBytes(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.ended {
		a.waitingBytes += size
		a.largest = max(a.largest, size)
		a.budget.Add(size)
	}
}

// takeDelivery counts a waiting delivery as unsettled. From then on the caller counts its bytes.
// It returns false if the delivery has to stay with the broker, because the deliveries taken so
// far fill the budget.
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

// settleDelivery counts a delivery as settled, and reports whether it was the last unsettled one.
func (a *arrivals) settleDelivery() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unsettled--
	return a.unsettled == 0
}

// largestSize returns the size of the largest delivery so far.
func (a *arrivals) largestSize() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.largest
}

// isIdle reports whether all taken deliveries are settled.
func (a *arrivals) isIdle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.unsettled == 0
}

// isExhausted reports whether all admitted deliveries are taken and all others are skipped.
func (a *arrivals) isExhausted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.skipping && a.waiting == 0
}

// endConsumer gives the bytes of waiting deliveries back to the budget, because the channel is
// closed.
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

// findArrivals returns nil for the tag of a consumer that isn't a subscription's, such as a tap's.
func (c *consumers) findArrivals(tag []byte) *arrivals {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byTag[string(tag)]
}
