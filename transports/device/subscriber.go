package device

import (
	"context"
	"fmt"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// subscriber is the consumer of one pipeline. From its creation on it has a backlog of both
// topics, and Subscribe drops the one that it doesn't need. So nothing is lost between the start
// of a listener and the start of a pipeline.
type subscriber struct {
	feed     *feed
	pipeline string
	void     context.Context // the context of its deliveries; Close ends it
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup

	// Guarded by feed.mu.
	backlogs map[string]*backlog
	chosen   bool // Subscribe has chosen the topic
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
				for it := b.all.head; it != nil; it = it.all.next {
					s.feed.recordSettled(it.record) // it doesn't need them
				}
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

// Close implements transports.Subscriber. Unsettled deliveries become void, and nothing more is
// kept.
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

// subscription is the result of one Subscribe.
type subscription struct {
	*subscriber
	backlog *backlog
	window  int
	// unsettled is the number of unsettled deliveries, guarded by feed.mu.
	unsettled int
}

// run delivers the records of the backlog. It returns when the subscriber is closed. It also
// returns when all deliveries are settled and either ctx has ended or the topic is drained and the
// backlog empty.
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

// nextItem waits until the window has room, and returns the backlog's first item. It returns nil
// if run must return.
func (s *subscription) nextItem(ctx context.Context) *item {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	for {
		ready := ctx.Err() == nil && s.unsettled < s.window && s.backlog.n > 0
		switch {
		case s.void.Err() != nil:
			return nil
		case ready && (s.unsettled == 0 || !s.feed.options.Memory.InFlight.Full()):
			s.unsettled++
			return s.backlog.takeFirst()
		case s.unsettled == 0 && (ctx.Err() != nil || s.backlog.drained && s.backlog.n == 0):
			return nil
		case ready:
			transports.WaitForRoom(s.backlog.changed)
		default:
			s.backlog.changed.Wait()
		}
	}
}

// makeDelivery returns a delivery of an item. If the delivery is nacked, the item goes back to its
// place in the backlog. This or a later subscription then redelivers it.
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
		} else {
			s.feed.recordSettled(it.record)
		}
		s.backlog.changed.Broadcast()
	}
	return d
}
