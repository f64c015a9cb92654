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

// closeTimeout bounds the Close of a subscriber or transport, whatever the broker does.
const closeTimeout = 5 * time.Second

// subscriber is one pipeline's.
type subscriber struct {
	t        *transport
	pipeline string
	// competing says that others may consume from its queues.
	competing bool

	// kill ends at Close: from then on nothing is waited for.
	killed  context.Context
	killNow context.CancelFunc
	running sync.WaitGroup // the subscriptions

	// present is told whether there is a consumer at the broker; nil if nobody asks.
	present func(bool)

	mu sync.Mutex
	// consumers is how many there are at the broker.
	consumers int
}

var _ transports.Subscriber = (*subscriber)(nil)

// count counts consumers as they come and go. The lock is held.
func (s *subscriber) countConsumers(change int) {
	s.consumers += change
	if s.present != nil {
		s.present(s.consumers > 0)
	}
}

// Subscribe implements transports.Subscriber: it consumes from a topic's queue through every
// outage.
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
		if s.t.startSubscription(r, func() { sub.run(ctx) }) {
			return sub.done, nil
		}
		s.running.Done()
	}
	return nil, fmt.Errorf("subscribing to %s: %w", topic, transports.ErrClosed)
}

// Close ends the pipeline's subscriptions; what they handed out and wasn't acked goes back to the broker.
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
	// prefetch belongs to run.
	prefetch prefetch
	// stop ends when no more deliveries are wanted.
	stop context.Context
	// lost says that the last consumer was lost: the broker may still count on it.
	lost bool
	// limit is the queue's delivery limit: see [route.deliveryLimit]. warned is when a message was
	// near it.
	limit  int
	warned time.Time

	// handing is locked while deliveries are handed out. Once closed is set, and done closed,
	// none is.
	delivering sync.Mutex
	closed     bool
	done       chan struct{}
}

// close closes done as soon as nothing is being handed out.
func (s *subscription) close() {
	s.delivering.Lock()
	defer s.delivering.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

func (s *subscription) changeConsumers(change int) {
	s.subscriber.mu.Lock()
	defer s.subscriber.mu.Unlock()
	s.subscriber.countConsumers(change)
}

// run consumes, and consumes again after each loss, until the subscription ends. When the
// subscriber is closed, done is closed at once, whatever the broker does. run goes on until the
// broker has answered or the connection is closed.
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
	pauses := s.t.config.Reconnect.pauses()
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
		// The loss of the connection is the link's to report and to wait out.
		if session.isLost() {
			continue
		}
		s.t.topics.report(topic, s, err)
		if !backoff.Sleep(s.stop, pauses.NextBackOff()) {
			return
		}
	}
}

// consumerTag is what the broker's tools show as the consumer.
func (t *transport) consumerTag(pipeline string) string {
	tag := strings.Join([]string{t.env.Host, t.env.Name, pipeline}, ".")
	return fmt.Sprintf("%.200s#%d", tag, t.tags.Add(1))
}
