package schedule

import (
	"context"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// The pause before a nacked tick is handed out again, which doubles up to the longest.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
)

// consumer is one pipeline's use of a topic: a place for one tick. The clock's lock guards it.
//
// A tick that finds the place empty takes it. One that finds a tick there which the pipeline doesn't have, be it not yet or not any more
// since its nack, takes that one's place. One that comes while the pipeline has the tick is the one that is missed.
type consumer struct {
	topic    *topic
	pipeline string
	owner    *subscriber // removes it with its Close
	// subscribed says that a subscription's goroutine runs; wake is for it.
	subscribed bool
	wake       chan struct{}

	held *held
	out  bool // the pipeline has it
	// skipped were missed since a tick was handed out for the first time; missed in all.
	skipped int
	missed  uint64
}

// held is a tick in a consumer's place.
type held struct {
	tick   *tick
	missed int // how many were missed before it; told when it is handed out
	again  bool
	pause  time.Duration
	after  time.Time // not handed out again before
}

// offer gives the consumer a tick. The lock is held.
func (c *consumer) offer(it *tick) {
	if c.held != nil {
		c.miss(1)
	}
	if c.out {
		return
	}
	c.held = nil
	if c.subscribed {
		c.held = &held{tick: it}
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// miss counts ticks that the consumer doesn't get. The lock is held.
func (c *consumer) miss(n int) {
	if c.subscribed || c.held != nil {
		c.skipped += n
		c.missed += uint64(n)
	}
}

// delivery is a tick on its way to a pipeline.
type delivery struct {
	held   *held
	missed int
	msg    *message.Message
	void   context.CancelCauseFunc
}

// next returns what is to be handed out and how long not yet, or nil.
func (c *consumer) next() (*delivery, time.Duration) {
	k := c.topic.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.held == nil || k.quiet() {
		return nil, 0
	}
	d := &delivery{held: c.held, missed: c.skipped, msg: c.held.tick.message()}
	if c.held.again {
		d.missed = c.held.missed
		d.msg.Metadata[transports.Redelivered] = "true"
	}
	d.msg.Metadata[missedKey] = strconv.Itoa(d.missed)
	ctx, void := context.WithCancelCause(context.Background())
	d.msg.SetContext(ctx)
	d.void = void
	return d, time.Until(c.held.after)
}

// handed notes that the pipeline has the tick. If another took its place in that moment, it is that one which was missed.
func (c *consumer) handed(d *delivery) {
	c.topic.clock.mu.Lock()
	defer c.topic.clock.mu.Unlock()
	c.held, c.out = d.held, true
	if !d.held.again {
		d.held.missed = d.missed
		c.skipped -= d.missed
	}
}

// settle ends what handed began: done for good, or to be handed out again after a pause.
func (c *consumer) settle(d *delivery, done bool) {
	c.topic.clock.mu.Lock()
	defer c.topic.clock.mu.Unlock()
	c.out = false
	if done {
		c.held = nil
		return
	}
	h := d.held
	h.again = true
	h.pause = min(max(2*h.pause, firstPause), longestPause)
	h.after = time.Now().Add(h.pause)
}
