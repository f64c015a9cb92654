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

// The pause before a tick that was handed back is handed out again, which doubles up to the
// longest.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// consumer is one pipeline's use of a topic: a place for one tick. The clock's lock guards it.
//
// A tick that finds the place empty takes it. One that finds a tick there which the pipeline
// doesn't have, be it not yet or not any more since it handed it back, takes that one's place. One
// that comes while the pipeline has the tick is the one that is missed.
type consumer struct {
	topic    *topic
	pipeline string
	owner    *subscriber // removes it with its Close
	// subscribed says that a subscription's goroutine runs; changed is for it.
	subscribed bool
	changed    *sync.Cond

	held *held
	out  bool // the pipeline has it
	// skipped were missed since a tick was handed out for the first time; missed in all.
	skipped int
	missed  uint64
}

// held is a tick in a consumer's place.
type held struct {
	tick   *transports.Delivery // without what belongs to the consumer
	missed int                  // how many were missed before it; set when it is handed out
	again  bool
	pauses cenkalti.ExponentialBackOff
	after  time.Time // not handed out again before
}

// offer gives the consumer a tick. The lock is held.
func (c *consumer) offer(it *transports.Delivery) {
	if c.held != nil {
		c.miss(1)
	}
	if c.out {
		return
	}
	c.held = nil
	if c.subscribed {
		c.held = &held{tick: it, pauses: backoff.New(firstPause, longestPause)}
		c.changed.Signal()
	}
}

// miss counts ticks that the consumer doesn't get. The lock is held.
func (c *consumer) miss(n int) {
	if c.subscribed || c.held != nil {
		c.skipped += n
		c.missed += uint64(n)
	}
}

// next waits for a tick that may be handed out. It returns nil when the subscription has ended.
func (c *consumer) next(ctx context.Context) *transports.Delivery {
	k := c.topic.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	for {
		if c.owner.void.Err() != nil || ctx.Err() != nil && !c.out {
			c.subscribed = false
			return nil
		}
		if c.held != nil && !c.out && !k.quiet() && !time.Now().Before(c.held.after) {
			return c.delivery(c.held)
		}
		c.changed.Wait()
	}
}

// delivery makes a delivery of the tick that the consumer holds. The lock is held.
func (c *consumer) delivery(h *held) *transports.Delivery {
	d := *h.tick
	d.Metadata = maps.Clone(d.Metadata)
	if h.again {
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
	c.out = true
	return &d
}

// settle ends what delivery began: done for good, or to be handed out again after a pause. The
// lock is held.
func (c *consumer) settle(h *held, done bool) {
	c.out = false
	c.changed.Signal()
	if done {
		c.held = nil
		return
	}
	h.again = true
	pause := h.pauses.NextBackOff()
	h.after = time.Now().Add(pause)
	time.AfterFunc(pause, c.wake)
}

// wake has the subscription's goroutine look again.
func (c *consumer) wake() {
	c.changed.L.Lock()
	defer c.changed.L.Unlock()
	c.changed.Signal()
}
