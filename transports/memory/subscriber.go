package memory

import (
	"context"
	"fmt"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// subscriber consumes topics for one pipeline. Its consumers exist until its Close, also while
// they aren't subscribed.
type subscriber struct {
	memory   *memory
	pipeline string
	void     context.Context // of deliveries; ends with Close
	cancel   context.CancelCauseFunc
	work     sync.WaitGroup
}

// Subscribe makes the pipeline a consumer of the topic. It doesn't get messages that were
// published before.
func (s *subscriber) Subscribe(ctx context.Context, name string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	m := s.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.void.Err() != nil {
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.pipeline, name, transports.ErrClosed)
	}
	t := m.topic(name)
	c := t.consumers[s.pipeline]
	switch {
	case c == nil:
		c = &consumer{
			topic: t, pipeline: s.pipeline, limit: m.config.Buffer, window: m.config.window(), changed: sync.NewCond(&m.mu),
		}
		t.consumers[s.pipeline] = c
		t.kept, t.keptBytes = nil, 0
	case c.subscribed:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: it is already subscribed", s.pipeline, name)
	}
	c.owner, c.subscribed = s, true
	done := make(chan struct{})
	s.work.Add(1)
	m.work.Go(func() {
		defer s.work.Done()
		defer close(done)
		defer context.AfterFunc(ctx, c.wake)()
		for d := c.next(ctx); d != nil; d = c.next(ctx) {
			take(d)
		}
	})
	return done, nil
}

// release closes the subscriber and removes its consumers with their buffers. The caller has
// locked mu of the transport.
func (s *subscriber) release() {
	s.cancel(transports.ErrVoid)
	delete(s.memory.subscribers, s)
	for _, t := range s.memory.topics {
		if c := t.consumers[s.pipeline]; c != nil && c.owner == s {
			delete(t.consumers, s.pipeline)
			c.dropWaiting()
			c.changed.Signal()
			t.signalRoom()
		}
	}
}

// Close removes the pipeline's buffers. Unsettled messages become void.
func (s *subscriber) Close() error {
	s.memory.mu.Lock()
	s.release()
	s.memory.mu.Unlock()
	s.work.Wait()
	return nil
}
