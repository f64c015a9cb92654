package schedule

import (
	"context"
	"fmt"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// subscriber consumes topics for one pipeline.
type subscriber struct {
	clock    *clock
	pipeline string
	void     context.Context // of deliveries; ends with Close
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup
}

// Subscribe makes the pipeline a consumer of the topic. It doesn't get earlier ticks.
func (s *subscriber) Subscribe(ctx context.Context, name string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	k := s.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.topics[name]
	switch {
	case s.void.Err() != nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, name, transports.ErrClosed)
	case t == nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: there is no such topic", s.pipeline, name)
	}
	c := t.consumers[s.pipeline]
	switch {
	case c == nil:
		c = &consumer{topic: t, pipeline: s.pipeline, changed: sync.NewCond(&k.mu)}
		t.consumers[s.pipeline] = c
	case c.subscribed:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: it is already subscribed", s.pipeline, name)
	}
	c.owner, c.subscribed = s, true
	done := make(chan struct{})
	s.work.Add(1)
	k.work.Go(func() {
		defer s.work.Done()
		defer close(done)
		defer context.AfterFunc(ctx, c.wake)()
		for d := c.nextDelivery(ctx); d != nil; d = c.nextDelivery(ctx) {
			take(d)
		}
	})
	return done, nil
}

// release closes the subscriber and removes its consumers. The caller has locked mu of the clock.
func (s *subscriber) release() {
	s.cancel(transports.ErrVoid)
	delete(s.clock.subscribers, s)
	for _, t := range s.clock.topics {
		if c := t.consumers[s.pipeline]; c != nil && c.owner == s {
			delete(t.consumers, s.pipeline)
			c.changed.Signal()
		}
	}
}

// Close removes the pipeline's consumers. An unsettled tick becomes void.
func (s *subscriber) Close() error {
	s.clock.mu.Lock()
	s.release()
	s.clock.mu.Unlock()
	s.work.Wait()
	return nil
}
