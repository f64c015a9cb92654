package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// subscriber is one pipeline's way out. Its consumers live until its Close, whether they are subscribed or not.
type subscriber struct {
	memory   *memory
	pipeline string
	closed   chan struct{}
	work     sync.WaitGroup
}

// Subscribe makes the pipeline a consumer of the topic. Messages that were published before are not for it.
func (s *subscriber) Subscribe(ctx context.Context, name string) (<-chan *message.Message, error) {
	m := s.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.over() {
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, name, transports.ErrClosed)
	}
	t := m.topic(name)
	c := t.consumers[s.pipeline]
	switch {
	case c == nil:
		c = &consumer{
			topic: t, pipeline: s.pipeline, limit: m.config.Buffer, window: m.config.window(),
			wake: make(chan struct{}, 1),
		}
		t.consumers[s.pipeline] = c
		t.kept = nil
	case c.subscribed:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: it is subscribed", s.pipeline, name)
	}
	c.owner, c.subscribed = s, true
	out := make(chan *message.Message)
	s.work.Add(1)
	m.work.Go(func() {
		defer s.work.Done()
		s.run(ctx, c, out)
	})
	return out, nil
}

// run hands out the consumer's messages until ctx ends, the topic is dry, or the subscriber is closed; in the first case it then
// waits for what is unsettled.
func (s *subscriber) run(ctx context.Context, c *consumer, out chan<- *message.Message) {
	var deliveries sync.WaitGroup
	defer func() {
		deliveries.Wait()
		s.memory.mu.Lock()
		c.subscribed = false
		s.memory.mu.Unlock()
		close(out)
	}()
	cancelled := ctx.Done()
	for {
		it, done := s.next(ctx, c)
		switch {
		case done:
			return
		case it != nil:
			if d := s.emit(ctx, c, it, out); d != nil {
				deliveries.Go(func() { s.await(c, d) })
			}
		default:
			select {
			case <-c.wake:
			case <-cancelled:
				cancelled = nil // from now on only what is unsettled counts
			case <-s.closed:
			}
		}
	}
}

// emit hands out a message that was taken; if an earlier one comes back meanwhile, then that one. It returns nil, and puts
// the message back, if the subscription ends first.
func (s *subscriber) emit(ctx context.Context, c *consumer, it *item, out chan<- *message.Message) *delivery {
	d := newDelivery(it)
	for {
		select {
		case out <- d.msg:
			return d
		case <-c.wake:
			if first := s.first(c, d.item); first != d.item {
				d = newDelivery(first)
			}
		case <-ctx.Done():
			s.settle(c, d.item, false)
			return nil
		case <-s.closed:
			s.settle(c, d.item, false)
			return nil
		}
	}
}

// first gives a taken message back for one that comes before it.
func (s *subscriber) first(c *consumer, it *item) *item {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	if len(c.waiting) == 0 || c.waiting[0].number > it.number {
		return it
	}
	first := c.waiting[0]
	c.waiting[0] = it // its place: it was the first before
	return first
}

// next takes the next message, if there is one to hand out. done says that the subscription has ended.
func (s *subscriber) next(ctx context.Context, c *consumer) (it *item, done bool) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	switch {
	case s.over():
		return nil, true
	case ctx.Err() != nil:
		return nil, c.unsettled == 0
	}
	return c.take(), c.topic.drained && c.size() == 0
}

// delivery is a message that was handed out.
type delivery struct {
	item *item
	msg  *message.Message
	void context.CancelCauseFunc
}

func newDelivery(it *item) *delivery {
	msg := it.msg.Copy()
	if it.again {
		msg.Metadata[transports.Redelivered] = "true"
	} else {
		delete(msg.Metadata, transports.Redelivered)
	}
	ctx, void := context.WithCancelCause(context.Background())
	msg.SetContext(ctx)
	return &delivery{item: it, msg: msg, void: void}
}

// await waits until the delivery is settled.
func (s *subscriber) await(c *consumer, d *delivery) {
	select {
	case <-d.msg.Acked():
		s.settle(c, d.item, true)
	case <-d.msg.Nacked():
		d.item.again = true
		s.settle(c, d.item, false)
	case <-s.closed:
		d.void(transports.ErrVoid)
		s.settle(c, d.item, false)
	}
}

func (s *subscriber) settle(c *consumer, it *item, done bool) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	c.settle(it, done)
}

// over reports whether the subscriber or its transport is closed.
func (s *subscriber) over() bool {
	select {
	case <-s.closed:
		return true
	default:
		return s.memory.over()
	}
}

// end closes the subscriber and gives up its consumers with what they hold. The lock is held.
func (s *subscriber) end() {
	select {
	case <-s.closed:
		return
	default:
	}
	close(s.closed)
	delete(s.memory.subscribers, s)
	for _, t := range s.memory.topics {
		if c := t.consumers[s.pipeline]; c != nil && c.owner == s {
			delete(t.consumers, s.pipeline)
			t.roomier()
		}
	}
}

// Close ends the pipeline's use: its buffers go, and what is unsettled becomes void.
func (s *subscriber) Close() error {
	s.memory.mu.Lock()
	s.end()
	s.memory.mu.Unlock()
	s.work.Wait()
	return nil
}
