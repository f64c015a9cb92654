package schedule

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// subscriber is one pipeline's way out.
type subscriber struct {
	clock    *clock
	pipeline string
	closed   chan struct{}
	work     sync.WaitGroup
}

// Subscribe makes the pipeline a consumer of the topic. Ticks before that are not for it.
func (s *subscriber) Subscribe(ctx context.Context, name string) (<-chan *message.Message, error) {
	k := s.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.topics[name]
	switch {
	case s.over():
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, name, transports.ErrClosed)
	case t == nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: there is no such topic", s.pipeline, name)
	}
	c := t.consumers[s.pipeline]
	switch {
	case c == nil:
		c = &consumer{topic: t, pipeline: s.pipeline, wake: make(chan struct{}, 1)}
		t.consumers[s.pipeline] = c
	case c.subscribed:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: it is subscribed", s.pipeline, name)
	}
	c.owner, c.subscribed = s, true
	out := make(chan *message.Message)
	s.work.Add(1)
	k.work.Go(func() {
		defer s.work.Done()
		s.run(ctx, c, out)
	})
	return out, nil
}

// run hands ticks out, one at a time, until ctx ends or the subscriber is closed; in the first case the last one is settled before.
func (s *subscriber) run(ctx context.Context, c *consumer, out chan<- *message.Message) {
	defer func() {
		s.clock.mu.Lock()
		c.subscribed = false
		s.clock.mu.Unlock()
		close(out)
	}()
	quiet := s.clock.ticking.Done()
	for ctx.Err() == nil {
		var ready chan<- *message.Message
		var msg *message.Message
		var again <-chan time.Time
		d, pause := c.next()
		switch {
		case d == nil:
		case pause > 0:
			again = time.After(pause)
		default:
			ready, msg = out, d.msg
		}
		select {
		case ready <- msg:
			c.handed(d)
			if !s.await(c, d) {
				return
			}
		case <-again:
		case <-c.wake:
		case <-quiet:
			quiet = nil // once is enough: from now on there is nothing to hand out
		case <-ctx.Done():
		case <-s.closed:
			return
		}
	}
}

// await waits until the pipeline has settled its tick. It is false if the subscriber was closed before.
func (s *subscriber) await(c *consumer, d *delivery) bool {
	select {
	case <-d.msg.Acked():
		c.settle(d, true)
	case <-d.msg.Nacked():
		c.settle(d, false)
	case <-s.closed:
		d.void(transports.ErrVoid)
		c.settle(d, false)
		return false
	}
	return true
}

// over reports whether the subscriber or its transport is closed.
func (s *subscriber) over() bool {
	select {
	case <-s.closed:
		return true
	default:
		return s.clock.over()
	}
}

// end closes the subscriber and gives up its consumers. The lock is held.
func (s *subscriber) end() {
	select {
	case <-s.closed:
		return
	default:
	}
	close(s.closed)
	delete(s.clock.subscribers, s)
	for _, t := range s.clock.topics {
		if c := t.consumers[s.pipeline]; c != nil && c.owner == s {
			delete(t.consumers, s.pipeline)
		}
	}
}

// Close ends the pipeline's use: a tick that isn't settled becomes void.
func (s *subscriber) Close() error {
	s.clock.mu.Lock()
	s.end()
	s.clock.mu.Unlock()
	s.work.Wait()
	return nil
}
