package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// closeTimeout bounds the Close of a subscriber or transport, even if the broker doesn't answer.
const closeTimeout = 5 * time.Second

// subscriber is the subscriber of one pipeline.
type subscriber struct {
	t        *transport
	pipeline string
	// competing says that others may consume from the pipeline's queues.
	competing bool

	// killed ends at Close. From then on the subscriber waits for nothing.
	killed  context.Context
	killNow context.CancelFunc
	running sync.WaitGroup // the subscriptions

	// present receives true if the broker has a consumer of the pipeline, and false otherwise. It
	// may be nil.
	present func(bool)

	mu sync.Mutex
	// consumers is the number of consumers at the broker.
	consumers int
}

var _ transports.Subscriber = (*subscriber)(nil)

// countConsumers changes the number of consumers. The caller has locked mu.
func (s *subscriber) countConsumers(change int) {
	s.consumers += change
	if s.present != nil {
		s.present(s.consumers > 0)
	}
}

// Subscribe implements transports.Subscriber. It consumes from a topic's queue, and goes on after
// each outage.
func (s *subscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	r, err := s.t.route(topic)
	if err != nil {
		return nil, err
	}
	sub := &subscription{
		t: s.t, subscriber: s, route: r, take: take, tag: s.t.consumerTag(s.pipeline), prefetch: prefetch{configured: r.prefetch},
		done: make(chan struct{}),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countConsumers(0)
	if s.killed.Err() == nil {
		s.running.Add(1)
		s.t.topics.expect(topic, sub)
		if s.t.startSubscription(r, func() { sub.run(ctx) }) {
			return sub.done, nil
		}
		s.t.topics.forget(topic, sub)
		s.running.Done()
	}
	return nil, fmt.Errorf("subscribing to %s: %w", topic, transports.ErrClosed)
}

// Close ends the pipeline's subscriptions. The broker requeues all unacked messages.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.killNow()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), s.t.closeTimeout)
	defer cancel()
	if waitGroup(ctx, &s.running) != nil {
		return fmt.Errorf("closing the subscriber of %s: the broker didn't answer within %s", s.pipeline, s.t.closeTimeout)
	}
	return nil
}

// subscription is one call of Subscribe.
type subscription struct {
	t          *transport
	subscriber *subscriber
	route      *route
	tag        string
	take       func(*transports.Delivery)
	// prefetch belongs to the goroutine of run.
	prefetch prefetch
	// stop ends when the subscription takes no more deliveries.
	stop context.Context
	// lost says that the last consumer was lost. The broker may still have it.
	lost bool
	// limit is the queue's delivery limit: see [route.deliveryLimit]. warned is the time of the
	// last warning about it.
	limit  int
	warned time.Time

	// delivering is locked while deliveries are passed to take. When closed is set and done is
	// closed, take isn't called any more.
	delivering sync.Mutex
	closed     bool
	done       chan struct{}
}

// close closes done as soon as no call of take is running.
func (s *subscription) close() {
	s.delivering.Lock()
	defer s.delivering.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

// changeConsumers changes the subscriber's number of consumers.
func (s *subscription) changeConsumers(change int) {
	s.subscriber.mu.Lock()
	defer s.subscriber.mu.Unlock()
	s.subscriber.countConsumers(change)
}

// run consumes, and again after each loss, until the subscription ends. When the subscriber is
// closed, done is closed at once. run itself goes on until the broker has answered or the
// connection is closed.
func (s *subscription) run(ctx context.Context) {
	defer s.subscriber.running.Done()
	var end context.CancelFunc
	s.stop, end = context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(s.t.taking, end)()
	defer s.close()
	defer context.AfterFunc(s.subscriber.killed, func() {
		end()
		s.close()
	})()
	topic := s.route.topic
	defer s.t.topics.forget(topic, s)
	pauses := pausesOf(s.t.config.Reconnect)
	for s.stop.Err() == nil {
		session, err := s.t.consumer.awaitSession(s.stop)
		if err != nil {
			return
		}
		alone := !s.subscriber.competing && !s.route.isSingleActive()
		if alone {
			s.t.sharing.addConsumer(s.route.queue)
		}
		g, err := s.beginGeneration(session.conn)
		if err == nil {
			s.t.topics.report(topic, s, nil)
			pauses.Reset()
			s.changeConsumers(+1)
			err = g.run()
			s.changeConsumers(-1)
			s.lost = true
		}
		if alone {
			s.t.sharing.removeConsumer(s.route.queue, session.conn.IsClosed())
		}
		switch {
		case errors.Is(err, errStopped), errors.Is(err, errKilled):
			return
		case errors.Is(err, errOtherPrefetch):
			continue
		}
		// The link reports the loss of a connection, and connects again.
		if session.isLost() {
			continue
		}
		s.t.topics.report(topic, s, err)
		if !backoff.Sleep(s.stop, pauses.NextBackOff()) {
			return
		}
	}
}

// consumerTag returns the name of a consumer in the broker's tools.
func (t *transport) consumerTag(pipeline string) string {
	tag := strings.Join([]string{t.env.Host, t.env.Name, pipeline}, ".")
	return fmt.Sprintf("%.200s#%d", tag, t.tags.Add(1))
}
