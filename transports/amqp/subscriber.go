package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// closeTimeout bounds the Close of a subscriber or transport, whatever the broker does.
const closeTimeout = 5 * time.Second

// subscriber is one pipeline's.
type subscriber struct {
	t        *transport
	pipeline string

	mu     sync.Mutex
	closed bool
	subs   map[*subscription]struct{}
	// consumers is how many there are at the broker, present for how long there was one, until since.
	consumers int
	present   time.Duration
	since     time.Time
}

var (
	_ message.Subscriber  = (*subscriber)(nil)
	_ transports.Presence = (*subscriber)(nil)
)

// Present returns for how long there has been a consumer at the broker.
func (s *subscriber) Present() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock()
}

// clock brings present up to date.
func (s *subscriber) clock() time.Duration {
	now := time.Now()
	if s.consumers > 0 {
		s.present += now.Sub(s.since)
	}
	s.since = now
	return s.present
}

// consuming counts consumers as they come and go.
func (s *subscriber) consuming(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock()
	s.consumers += change
}

// Subscribe consumes from a topic's queue until ctx ends, through every outage. See package transports for what a subscription owes.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	r, err := s.t.route(topic)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("subscribing to %s: %w", topic, transports.ErrClosed)
	}
	sub := &subscription{
		t:     s.t,
		of:    s,
		route: r,
		tag:   s.t.consumerTag(s.pipeline),
		out:   make(chan *message.Message),
		done:  make(chan struct{}),
	}
	// Closing kills; a cancelled ctx stops. The messages' own contexts belong to neither.
	sub.kill, sub.end = context.WithCancel(s.t.consuming)
	var stopped context.CancelFunc
	sub.stop, stopped = context.WithCancel(sub.kill)
	unlink := context.AfterFunc(ctx, stopped)
	unquiet := context.AfterFunc(s.t.taking, stopped)
	run := func() {
		defer unlink()
		defer unquiet()
		sub.run()
		s.mu.Lock()
		delete(s.subs, sub)
		s.mu.Unlock()
	}
	if !s.t.consumes(r, run) {
		sub.end()
		return nil, fmt.Errorf("subscribing to %s: %w", topic, transports.ErrClosed)
	}
	s.subs[sub] = struct{}{}
	return sub.out, nil
}

// Close ends the pipeline's subscriptions; what they handed out and wasn't acked goes back to the broker.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	var subs []*subscription
	for sub := range s.subs {
		sub.end()
		subs = append(subs, sub)
	}
	s.mu.Unlock()
	timeout := time.NewTimer(s.t.closeTimeout)
	defer timeout.Stop()
	for _, sub := range subs {
		select {
		case <-sub.done:
		case <-timeout.C:
			return fmt.Errorf("closing the subscriber of %s: the broker didn't answer within %s", s.pipeline, s.t.closeTimeout)
		}
	}
	return nil
}

// subscription is one call of Subscribe.
type subscription struct {
	t     *transport
	of    *subscriber
	route *route
	tag   string
	out   chan *message.Message

	// stop ends when no more messages are wanted, kill when nothing is waited for either.
	stop context.Context
	kill context.Context
	end  context.CancelFunc

	// handing is held while messages are handed out. After closed nothing is.
	handing sync.Mutex
	closed  bool

	// settling are the goroutines that wait for messages to be settled.
	settling sync.WaitGroup
	done     chan struct{}
}

// close closes the output as soon as nothing is being handed out.
func (s *subscription) close() {
	s.handing.Lock()
	defer s.handing.Unlock()
	if !s.closed {
		s.closed = true
		close(s.out)
	}
}

// run consumes, and consumes again after each loss, until the subscription ends. Whoever kills it doesn't wait for the broker: the
// output is closed at once, and run goes on until the broker has answered or the connection is closed.
func (s *subscription) run() {
	defer close(s.done)
	defer s.settling.Wait()
	defer s.end()
	defer s.close()
	s.settling.Go(func() {
		<-s.kill.Done()
		s.close()
	})
	topic := s.route.topic
	defer s.t.topics.forget(topic, s)
	pause := s.t.config.Reconnect.InitialInterval
	for s.stop.Err() == nil {
		session, err := s.t.consumer.wait(s.stop)
		if err != nil {
			return
		}
		g, err := s.begin(session.conn)
		if err == nil {
			s.t.topics.works(topic, s)
			pause = s.t.config.Reconnect.InitialInterval
			s.of.consuming(+1)
			err = g.run()
			s.of.consuming(-1)
		}
		if errors.Is(err, errStopped) || errors.Is(err, errKilled) {
			return
		}
		// The loss of the connection is the link's to report and to wait out.
		if session.lost() {
			continue
		}
		s.t.topics.fails(topic, s, err)
		if !sleep(s.stop, jittered(pause)) {
			return
		}
		pause = min(pause*3/2, s.t.config.Reconnect.MaxInterval)
	}
}

// consumerTag is what the broker's tools show as the consumer.
func (t *transport) consumerTag(pipeline string) string {
	tag := strings.Join([]string{t.env.Host, t.env.Name, pipeline}, ".")
	return fmt.Sprintf("%.200s#%d", tag, t.tags.Add(1))
}
