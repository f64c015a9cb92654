package memory

import (
	"sort"

	"github.com/ThreeDotsLabs/watermill/message"
)

// keep is how many messages of a topic without a consumer are kept for taps.
const keep = 1000

// topic is one stream. The transport's lock guards it, but for the channels.
type topic struct {
	name string
	// turn is held by the one Publish call that may append; the others queue for it in their order.
	turn chan struct{}
	// room says that a buffer may have become less full.
	room chan struct{}

	consumers map[string]*consumer // by pipeline
	published uint64
	kept      []*message.Message
	drained   bool
}

// full returns a consumer whose buffer is full, or nil.
func (t *topic) full() *consumer {
	for _, c := range t.consumers {
		if c.size() >= c.limit {
			return c
		}
	}
	return nil
}

// add appends a message to every buffer, or keeps it if there is none.
func (t *topic) add(msg *message.Message) {
	t.published++
	if len(t.consumers) == 0 {
		if len(t.kept) == keep {
			t.kept[0] = nil
			t.kept = t.kept[1:]
		}
		t.kept = append(t.kept, msg)
		return
	}
	for _, c := range t.consumers {
		c.waiting = append(c.waiting, &item{number: t.published, msg: msg})
		c.signal()
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
	// subscribed says that a subscription's goroutine runs; wake is for it.
	subscribed bool
	wake       chan struct{}
}

// item is a message in a buffer.
type item struct {
	number uint64
	msg    *message.Message
	again  bool // was handed out before
}

func (c *consumer) size() int { return len(c.waiting) + c.unsettled }

func (c *consumer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take removes the first message that may be handed out, or returns nil.
func (c *consumer) take() *item {
	if len(c.waiting) == 0 || c.unsettled >= c.window {
		return nil
	}
	it := c.waiting[0]
	c.waiting[0] = nil
	c.waiting = c.waiting[1:]
	c.unsettled++
	return it
}

// settle ends what take began: done for good, or back to its place in the order.
func (c *consumer) settle(it *item, done bool) {
	c.unsettled--
	if done {
		c.topic.roomier()
	} else {
		at := sort.Search(len(c.waiting), func(i int) bool { return c.waiting[i].number > it.number })
		c.waiting = append(c.waiting, nil)
		copy(c.waiting[at+1:], c.waiting[at:])
		c.waiting[at] = it
	}
	c.signal()
}
