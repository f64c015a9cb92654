package memory

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// keep is how many messages of a topic without a consumer are kept for taps, and keepBytes of how many bytes.
const (
	keep      = 1000
	keepBytes = 4 << 20
)

// topic is one stream. The transport's lock guards it, but for the channels.
type topic struct {
	name string
	// turn is held by the one Publish call that may append; the others queue for it in their order.
	turn chan struct{}
	// room says that a buffer may have become less full.
	room chan struct{}

	consumers map[string]*consumer // by pipeline
	published uint64
	kept      []*transports.Delivery
	keptBytes int
	drained   bool
}

// full returns a consumer whose buffer is full, or nil. Where nothing waits there is room for one
// message, whatever others have taken of the budget.
func (t *topic) full() *consumer {
	for _, c := range t.consumers {
		if c.size() >= c.limit || len(c.waiting) > 0 && c.budgets().Waiting.Full() {
			return c
		}
	}
	return nil
}

// add appends a message to every buffer, or keeps it if there is none.
func (t *topic) add(content *transports.Delivery) {
	t.published++
	if len(t.consumers) == 0 {
		t.kept = append(t.kept, content)
		t.keptBytes += len(content.Payload)
		for len(t.kept) > keep || t.keptBytes > keepBytes {
			t.keptBytes -= len(t.kept[0].Payload)
			t.kept[0] = nil
			t.kept = t.kept[1:]
		}
		return
	}
	for _, c := range t.consumers {
		c.budgets().Waiting.Add(len(content.Payload))
		c.waiting = append(c.waiting, &item{number: t.published, content: content})
		c.changed.Signal()
	}
}

// roomier tells the Publish call that waits.
func (t *topic) roomier() {
	select {
	case t.room <- struct{}{}:
	default:
	}
}

// consumer is one pipeline's buffer of a topic.
type consumer struct {
	topic    *topic
	pipeline string
	owner    *subscriber // removes it with its Close
	limit    int
	window   int

	waiting   []*item // in the order of publishing
	unsettled int     // handed out
	// subscribed says that a subscription's goroutine runs; changed is for it.
	subscribed bool
	changed    *sync.Cond
}

// item is a message in a buffer.
type item struct {
	number  uint64
	content *transports.Delivery // without what belongs to a consumer
	again   bool                 // was handed out before
}

func (c *consumer) size() int { return len(c.waiting) + c.unsettled }

func (c *consumer) budgets() *transports.Memory { return &c.owner.memory.env.Memory }

// drop gives up what waits: the consumer ends.
func (c *consumer) drop() {
	for _, it := range c.waiting {
		c.budgets().Waiting.Give(len(it.content.Payload))
	}
	c.waiting = nil
}

// wake has the subscription's goroutine look again.
func (c *consumer) wake() {
	c.changed.L.Lock()
	defer c.changed.L.Unlock()
	c.changed.Signal()
}

// next waits for a message that may be handed out. It returns nil when the subscription has ended:
// nothing is unsettled after ctx ended, the topic is dry, or the subscriber is closed.
func (c *consumer) next(ctx context.Context) *transports.Delivery {
	c.changed.L.Lock()
	defer c.changed.L.Unlock()
	for {
		if c.owner.void.Err() != nil || ctx.Err() != nil && c.unsettled == 0 || c.topic.drained && c.size() == 0 {
			c.subscribed = false
			return nil
		}
		if ctx.Err() == nil && len(c.waiting) > 0 && c.unsettled < c.window && (c.unsettled == 0 || !c.budgets().InFlight.Full()) {
			return c.take()
		}
		c.changed.Wait()
	}
}

// take removes the first message and makes a delivery of it. The lock is held.
func (c *consumer) take() *transports.Delivery {
	it := c.waiting[0]
	c.waiting[0] = nil
	c.waiting = c.waiting[1:]
	c.unsettled++
	c.budgets().Waiting.Give(len(it.content.Payload))
	c.topic.roomier()
	d := *it.content // which all consumers share, with its metadata
	if it.again {
		d.Metadata = maps.Clone(d.Metadata)
		d.Metadata[transports.Redelivered] = "true"
	}
	d.Context = c.owner.void
	settled := false
	d.Settle = func(o *transports.Outcome) {
		c.changed.L.Lock()
		defer c.changed.L.Unlock()
		if !settled && d.Context.Err() == nil {
			settled = true
			c.settle(it, o != nil)
		}
	}
	return &d
}

// settle ends what take began: done for good, or back to its place in the order. The lock is held.
func (c *consumer) settle(it *item, done bool) {
	c.unsettled--
	if done {
		c.topic.roomier()
	} else {
		it.again = true
		c.budgets().Waiting.Add(len(it.content.Payload))
		at, _ := slices.BinarySearchFunc(c.waiting, it.number, func(o *item, n uint64) int { return cmp.Compare(o.number, n) })
		c.waiting = slices.Insert(c.waiting, at, it)
	}
	c.changed.Signal()
}
