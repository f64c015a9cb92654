package schedule

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"time"

	cenkalti "github.com/cenkalti/backoff/v5"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// The pause before a nacked tick is redelivered. It doubles with each nack, up to the longest.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// consumer is a pipeline that consumes a topic. It has a place for one tick, in current. The
// clock's mu guards it.
//
// When a new tick is due, the place is in one of three states. If it is empty, the new tick takes
// it. If its tick is waiting (not delivered yet, or nacked), the new tick replaces it, and the old
// one is missed. If its tick is delivered and unsettled, the new tick is missed.
type consumer struct {
	topic    *topic
	pipeline string
	owner    *subscriber // its Close removes the consumer
	// subscribed says that a subscription's goroutine runs. changed wakes it.
	subscribed bool
	changed    *sync.Cond

	current   *pendingTick
	delivered bool // current is delivered and unsettled
	// skipped is the number of ticks missed since the last new delivery, and missed is the number
	// of all missed ticks.
	skipped int
	missed  uint64
}

// pendingTick is the tick in a consumer's place.
type pendingTick struct {
	tick        *transports.Delivery // without the fields of the consumer
	missed      int                  // how many were missed before it; set at the first delivery
	redelivered bool
	pauses      cenkalti.ExponentialBackOff
	after       time.Time // when it may be redelivered
}

// offer puts a tick into the consumer's place, or counts a missed one. The caller has locked mu.
func (c *consumer) offer(it *transports.Delivery) {
	if c.current != nil {
		c.countMissed(1)
	}
	if c.delivered {
		return
	}
	c.current = nil
	if c.subscribed {
		c.current = &pendingTick{tick: it, pauses: backoff.New(firstPause, longestPause)}
		c.changed.Signal()
	}
}

// countMissed counts ticks that the consumer doesn't get. The caller has locked mu.
func (c *consumer) countMissed(n int) {
	if c.subscribed || c.current != nil {
		c.skipped += n
		c.missed += uint64(n)
	}
}

// nextDelivery waits for a tick that may be delivered. It returns nil when the subscription has
// ended.
func (c *consumer) nextDelivery(ctx context.Context) *transports.Delivery {
	k := c.topic.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		if c.owner.void.Err() != nil || ctx.Err() != nil && !c.delivered {
			c.subscribed = false
			return nil
		}
		if c.current != nil && !c.delivered && !k.isQuiet() && !time.Now().Before(c.current.after) {
			return c.delivery(c.current)
		}
		c.changed.Wait()
	}
}

// delivery makes a delivery of the tick in the consumer's place. The caller has locked mu.
func (c *consumer) delivery(h *pendingTick) *transports.Delivery {
	d := *h.tick
	d.Metadata = maps.Clone(d.Metadata)
	if h.redelivered {
		d.Metadata[transports.Redelivered] = "true"
	} else {
		h.missed, c.skipped = c.skipped, 0
	}
	d.Metadata[missedKey] = strconv.Itoa(h.missed)
	d.Context = c.owner.void
	settled := false
	d.Settle = func(o *transports.Outcome) {
		k := c.topic.clock
		k.mu.Lock()
		defer k.mu.Unlock()
		if !settled && d.Context.Err() == nil {
			settled = true
			c.settle(h, o != nil)
		}
	}
	c.delivered = true
	return &d
}

// settle removes an acked tick, or schedules the redelivery of a nacked one. The caller has locked
// mu.
func (c *consumer) settle(h *pendingTick, done bool) {
	c.delivered = false
	c.changed.Signal()
	if done {
		c.current = nil
		return
	}
	h.redelivered = true
	pause := h.pauses.NextBackOff()
	h.after = time.Now().Add(pause)
	time.AfterFunc(pause, c.wake)
}

// wake makes the subscription's goroutine check its state.
func (c *consumer) wake() {
	c.changed.L.Lock()
	defer c.changed.L.Unlock()
	c.changed.Signal()
}
