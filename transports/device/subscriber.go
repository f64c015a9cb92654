package device

import (
	"context"
	"fmt"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// subscriber is one pipeline's consumer. From its creation on it keeps what comes to both topics, until Subscribe says
// which one it is for; so nothing is lost between the start of a listener and that of a pipeline.
type subscriber struct {
	feed     *feed
	pipeline string
	void     context.Context // of deliveries; ends with Close
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup

	// Guarded by feed.mu.
	backlogs map[string]*backlog
	chosen   bool
}

func (f *feed) newSubscriber(pipeline string) *subscriber {
	void, cancel := context.WithCancelCause(context.Background())
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &subscriber{feed: f, pipeline: pipeline, void: void, cancel: cancel, backlogs: map[string]*backlog{
		EventsTopic: f.newBacklog(EventsTopic),
		DataTopic:   f.newBacklog(DataTopic),
	}}
	f.subscribers[s] = struct{}{}
	return s
}

// Subscribe implements transports.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	if topic != EventsTopic && topic != DataTopic {
		return nil, fmt.Errorf("subscribing to %q: devices have the topics %s and %s", topic, EventsTopic, DataTopic)
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.void.Err() != nil {
		return nil, fmt.Errorf("subscribing to %q: %w", topic, transports.ErrClosed)
	}
	if !s.chosen {
		s.chosen = true
		for name, b := range s.backlogs {
			if name != topic {
				delete(s.backlogs, name)
				b.discard()
			}
		}
	}
	b := s.backlogs[topic]
	if b == nil {
		b = s.feed.newBacklog(topic)
		s.backlogs[topic] = b
	}
	sub := &subscription{subscriber: s, backlog: b, window: s.feed.windowOf(topic)}
	done := make(chan struct{})
	s.running.Go(func() {
		defer close(done)
		sub.run(ctx, take)
	})
	return done, nil
}

// Close implements transports.Subscriber: deliveries that are not settled become void, and nothing
// is kept any more.
func (s *subscriber) Close() error {
	f := s.feed
	f.mu.Lock()
	s.cancel(transports.ErrVoid)
	delete(f.subscribers, s)
	for _, b := range s.backlogs {
		b.discard()
		b.changed.Broadcast()
	}
	f.mu.Unlock()
	s.running.Wait()
	return nil
}

// subscription is one Subscribe.
type subscription struct {
	*subscriber
	backlog *backlog
	window  int
	// unsettled is how many deliveries are out, guarded by feed.mu.
	unsettled int
}

// run hands out what is in the backlog until ctx ends and all is settled, the topic is dry, or the
// subscriber is closed.
func (s *subscription) run(ctx context.Context, take func(*transports.Delivery)) {
	defer context.AfterFunc(ctx, func() {
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
		s.backlog.changed.Broadcast()
	})()
	for it := s.nextItem(ctx); it != nil; it = s.nextItem(ctx) {
		take(s.makeDelivery(it))
	}
}

// next waits for the backlog's next item. It returns nil when there will be none.
func (s *subscription) nextItem(ctx context.Context) *item {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for {
		switch {
		case s.void.Err() != nil:
			return nil
		case ctx.Err() == nil && s.unsettled < s.window && s.backlog.n > 0 && (s.unsettled == 0 || !s.feed.options.Memory.InFlight.Full()):
			s.unsettled++
			return s.backlog.takeFirst()
		case s.unsettled == 0 && (ctx.Err() != nil || s.backlog.drained && s.backlog.n == 0):
			return nil
		}
		s.backlog.changed.Wait()
	}
}

// delivery makes a delivery of an item. One that is handed back comes again, in its order, by this
// or the next Subscribe.
func (s *subscription) makeDelivery(it *item) *transports.Delivery {
	d := it.record.newDelivery(s.feed)
	if it.redelivered {
		d.Metadata[transports.Redelivered] = "true"
	}
	d.Context = s.void
	settled := false
	d.Settle = func(o *transports.Outcome) {
		s.feed.mu.Lock()
		defer s.feed.mu.Unlock()
		if settled || s.void.Err() != nil {
			return
		}
		settled = true
		s.unsettled--
		if o == nil {
			it.redelivered = true
			s.backlog.insertItem(it)
		}
		s.backlog.changed.Broadcast()
	}
	return d
}
