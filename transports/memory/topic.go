package memory

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// maxKept and maxKeptBytes are the most messages and bytes that a topic without a consumer keeps
// for taps.
const (
	maxKept      = 1000
	maxKeptBytes = 4 << 20
)

// topic is a stream of messages. The transport's mu guards it, except the channels.
type topic struct {
	name string
	// turn is taken by the Publish call that may append. The others wait for it in their order.
	turn chan struct{}
	// room gets a value when a buffer has room again.
	room chan struct{}

	consumers map[string]*consumer // by pipeline
	published uint64
	kept      []*transports.Delivery
	keptBytes int
	drained   bool
}

// describeFull says which buffer has no room for a message, or returns "". An empty buffer has
// room for one message even if the budget is used up.
func (t *topic) describeFull() string {
	for _, c := range t.consumers {
		switch {
		case c.size() >= c.limit:
			return fmt.Sprintf("the buffer of pipeline %s is full with %d messages", c.pipeline, c.limit)
		case len(c.waiting) > 0 && c.budgets().Waiting.Full():
			return fmt.Sprintf("messages wait for pipeline %s, and the limit host.memory.waiting is used up", c.pipeline)
		}
	}
	return ""
}

// appendToAll appends a message to every buffer. If there is no consumer, the topic keeps it for
// taps.
func (t *topic) appendToAll(content *transports.Delivery) {
	t.published++
	if len(t.consumers) == 0 {
		t.kept = append(t.kept, content)
		t.keptBytes += len(content.Payload)
		for len(t.kept) > maxKept || t.keptBytes > maxKeptBytes {
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

// signalRoom wakes the waiting Publish call.
func (t *topic) signalRoom() {
	select {
	case t.room <- struct{}{}:
	default:
	}
}

// consumer is one pipeline's buffer of a topic.
type consumer struct {
	topic    *topic
	pipeline string
	owner    *subscriber // its Close removes the consumer
	limit    int
	window   int

	waiting   []*item // in the order of publishing
	unsettled int     // delivered messages that aren't settled
	// subscribed says that a subscription's goroutine runs. changed wakes it.
	subscribed bool
	changed    *sync.Cond
}

// item is a message in a buffer.
type item struct {
	number      uint64
	content     *transports.Delivery // without the fields of a single consumer
	redelivered bool                 // was delivered before
}

func (c *consumer) size() int { return len(c.waiting) + c.unsettled }

func (c *consumer) budgets() *transports.Memory { return &c.owner.memory.env.Memory }

// dropWaiting drops the waiting messages, because the consumer ends.
func (c *consumer) dropWaiting() {
	for _, it := range c.waiting {
		c.budgets().Waiting.Give(len(it.content.Payload))
	}
	c.waiting = nil
}

// wake makes the subscription's goroutine check its state.
func (c *consumer) wake() {
	c.changed.L.Lock()
	defer c.changed.L.Unlock()
	c.changed.Signal()
}

// next waits for a message that may be delivered. It returns nil when the subscription has ended.
// A subscription ends if ctx has ended and no message is unsettled, if the topic is drained and
// the buffer is empty, or if the subscriber is closed.
func (c *consumer) next(ctx context.Context) *transports.Delivery {
	c.changed.L.Lock()
	defer c.changed.L.Unlock()
	for {
		if c.owner.void.Err() != nil || ctx.Err() != nil && c.unsettled == 0 || c.topic.drained && c.size() == 0 {
			c.subscribed = false
			return nil
		}
		ready := ctx.Err() == nil && len(c.waiting) > 0 && c.unsettled < c.window
		switch {
		case ready && (c.unsettled == 0 || !c.budgets().InFlight.Full()):
			return c.take()
		case ready:
			transports.WaitForRoom(c.changed)
		default:
			c.changed.Wait()
		}
	}
}

// take removes the first message from the buffer and makes a delivery of it. The caller has locked
// mu.
func (c *consumer) take() *transports.Delivery {
	it := c.waiting[0]
	c.waiting[0] = nil
	c.waiting = c.waiting[1:]
	c.unsettled++
	c.budgets().Waiting.Give(len(it.content.Payload))
	c.topic.signalRoom()
	d := *it.content // all consumers share the content and its metadata
	if it.redelivered {
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

// settle removes a delivered message if it is acked, or puts it back to its place in the order.
// The caller has locked mu.
func (c *consumer) settle(it *item, done bool) {
	c.unsettled--
	if done {
		c.topic.signalRoom()
	} else {
		it.redelivered = true
		c.budgets().Waiting.Add(len(it.content.Payload))
		at, _ := slices.BinarySearchFunc(c.waiting, it.number, func(o *item, n uint64) int { return cmp.Compare(o.number, n) })
		c.waiting = slices.Insert(c.waiting, at, it)
	}
	c.changed.Signal()
}
