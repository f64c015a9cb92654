package device

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// subscriber is one pipeline's consumer. From its creation on it keeps what comes to both topics, until Subscribe says
// which one it is for; so nothing is lost between the start of a listener and that of a pipeline.
type subscriber struct {
	feed     *feed
	pipeline string
	void     context.Context // of messages; ends with Close
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup

	// Guarded by feed.mu.
	backlogs map[string]*backlog
	chosen   bool
	closed   bool
}

func (f *feed) subscriber(pipeline string) *subscriber {
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

// Subscribe implements message.Subscriber, with the duties that transports adds.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if topic != EventsTopic && topic != DataTopic {
		return nil, fmt.Errorf("subscribing to %q: devices have the topics %s and %s", topic, EventsTopic, DataTopic)
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("subscribing to %q: %w", topic, transports.ErrClosed)
	}
	if !s.chosen {
		s.chosen = true
		for name, b := range s.backlogs {
			if name != topic {
				delete(s.backlogs, name)
				b.release()
			}
		}
	}
	b := s.backlogs[topic]
	if b == nil {
		b = s.feed.newBacklog(topic)
		s.backlogs[topic] = b
	}
	sub := &subscription{
		subscriber: s, backlog: b, out: make(chan *message.Message), window: make(chan struct{}, s.feed.window(topic)),
	}
	s.running.Go(func() { sub.run(ctx) })
	return sub.out, nil
}

// Close implements message.Subscriber: messages that are not settled become void, and nothing is kept any more.
func (s *subscriber) Close() error {
	f := s.feed
	f.mu.Lock()
	s.closed = true
	delete(f.subscribers, s)
	for _, b := range s.backlogs {
		b.release()
	}
	f.mu.Unlock()
	s.cancel(transports.ErrVoid)
	s.running.Wait()
	return nil
}

// subscription is one Subscribe.
type subscription struct {
	*subscriber
	backlog   *backlog
	out       chan *message.Message
	window    chan struct{} // holds a token for each unsettled message
	unsettled sync.WaitGroup
}

func (s *subscription) run(ctx context.Context) {
	defer close(s.out)
	defer s.unsettled.Wait()
	for {
		select {
		case s.window <- struct{}{}:
		case <-ctx.Done():
			return
		case <-s.void.Done():
			return
		}
		it := s.next(ctx)
		if it == nil {
			return
		}
		msg := it.record.message(s.feed)
		if it.again {
			msg.Metadata[transports.Redelivered] = "true"
		}
		msg.SetContext(s.void)
		select {
		case s.out <- msg:
			it.again = true
			s.unsettled.Go(func() { s.await(it, msg) })
		case <-ctx.Done():
			s.putBack(it)
			return
		case <-s.void.Done():
			return
		}
	}
}

// next returns the backlog's first item, or nil when there will be none.
func (s *subscription) next(ctx context.Context) *item {
	for {
		s.feed.mu.Lock()
		it, ended := s.backlog.take(), s.backlog.drained && len(s.window) == 1
		if s.backlog.n > 0 || ended {
			s.backlog.signal() // for another Subscribe of the same consumer
		}
		s.feed.mu.Unlock()
		if it != nil || ended {
			return it
		}
		select {
		case <-s.backlog.more:
		case <-ctx.Done():
			return nil
		case <-s.void.Done():
			return nil
		}
	}
}

// await settles one message. One that was nacked is handed out again, in its order, by this or the next Subscribe.
func (s *subscription) await(it *item, msg *message.Message) {
	select {
	case <-msg.Acked():
	case <-msg.Nacked():
		s.putBack(it)
	case <-s.void.Done():
	}
	<-s.window
	s.feed.mu.Lock()
	s.backlog.signal()
	s.feed.mu.Unlock()
}

func (s *subscription) putBack(it *item) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.backlog.insert(it)
}
