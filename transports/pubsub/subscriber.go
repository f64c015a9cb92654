package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

const (
	// firstAttempt is how long Subscribe waits for its subscriptions, so that a Pub/Sub that keeps nothing
	// has a subscriber before the next message is published. Opening goes on in the background.
	firstAttempt = time.Second
	// ackTakes is how long a subscription that ends waits until its last ack has been sent.
	ackTakes = 5 * time.Second
	// remembered is how many messages that were handed back are known by their UUIDs.
	remembered = 10_000
)

var errEnded = errors.New("the Pub/Sub ended the subscription")

// subscriber is one pipeline's way out.
type subscriber struct {
	t        *transport
	consumer transports.Consumer
	life     context.Context // ends with Close
	end      context.CancelFunc
	work     sync.WaitGroup
	// taking is held while a delivery is handed out.
	taking sync.Mutex

	mu         sync.Mutex
	subscribed bool
	open       int // subscriptions that work
	// back are the UUIDs of messages that were handed out and not acked.
	back map[string]struct{}
}

// Subscribe implements transports.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.life.Err() != nil:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.consumer.Pipeline, topic, transports.ErrClosed)
	case s.subscribed:
		return nil, fmt.Errorf("subscribing pipeline %s to %s: it is subscribed", s.consumer.Pipeline, topic)
	}
	s.subscribed = true
	s.present()
	var running, tried sync.WaitGroup
	for n := range s.t.pubsub.Subscriptions {
		stop, cancel := context.WithCancel(ctx)
		unbind := context.AfterFunc(s.life, cancel)
		sub := &subscription{subscriber: s, n: n, topic: topic, take: take, stop: stop}
		sub.tried = sync.OnceFunc(tried.Done)
		tried.Add(1)
		s.work.Add(1)
		running.Go(func() {
			defer s.work.Done()
			defer sub.tried()
			defer cancel()
			defer unbind()
			sub.run()
		})
	}
	done := make(chan struct{})
	s.work.Go(func() {
		running.Wait()
		s.mu.Lock()
		s.subscribed = false
		s.mu.Unlock()
		close(done)
	})
	opened := make(chan struct{})
	s.work.Go(func() {
		tried.Wait()
		close(opened)
	})
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-opened:
	case <-time.After(firstAttempt):
	}
	return done, nil
}

// Close implements transports.Subscriber.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.work.Wait()
	for n := range s.t.pubsub.Subscriptions {
		s.t.forget(s.part(n))
	}
	return nil
}

func (s *subscriber) part(n int) string {
	return fmt.Sprintf("subscription %d of %s", n+1, s.consumer.Pipeline)
}

// present reports whether messages can come. The lock is held.
func (s *subscriber) present() {
	if s.consumer.Present != nil {
		s.consumer.Present(s.open > 0)
	}
}

// opened counts the subscriptions that work.
func (s *subscriber) opened(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += change
	s.present()
}

// again says whether a message was handed out before.
func (s *subscriber) again(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.back[id]
	return ok
}

// remember notes that a message may come again, or that it is acked.
func (s *subscriber) remember(id string, back bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !back:
		delete(s.back, id)
	case id == "":
	case s.back == nil || len(s.back) == remembered:
		s.back = map[string]struct{}{id: {}}
	default:
		s.back[id] = struct{}{}
	}
}

// subscription has one message in flight.
type subscription struct {
	*subscriber
	n     int
	topic string
	take  func(*transports.Delivery)
	stop  context.Context // ends when no more messages are wanted, and with life
	tried func()          // the first attempt has ended
}

// run subscribes, and subscribes again after each loss, until the subscription ends.
func (s *subscription) run() {
	pauses := backoff.New(firstPause, longestPause)
	for s.stop.Err() == nil {
		worked, err := s.session()
		if err == nil {
			return
		}
		s.t.report(s.part(s.n), err)
		s.tried()
		if worked {
			pauses.Reset()
		}
		backoff.Sleep(s.stop, pauses.NextBackOff())
	}
}

// connect opens a Subscriber and subscribes.
func (s *subscription) connect(ctx context.Context) (sub message.Subscriber, in <-chan *message.Message, err error) {
	err = safely(func() (err error) {
		sub, err = s.t.pubsub.Subscriber(s.consumer.Pipeline, s.n)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("opening: %w", err)
	}
	err = safely(func() (err error) {
		in, err = sub.Subscribe(ctx, s.topic)
		return err
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("subscribing to %s: %w", s.topic, err), safely(sub.Close))
	}
	return sub, in, nil
}

// session subscribes once. It returns nil when no more messages are wanted, otherwise why the subscription was
// lost, and whether a message was handled before that.
func (s *subscription) session() (worked bool, err error) {
	// It outlives stop, so that what is in flight can still be acked.
	ctx, cancel := context.WithCancel(s.life)
	sub, in, err := s.connect(ctx)
	if err != nil {
		cancel()
		return false, err
	}
	defer func() {
		cancel()
		err = errors.Join(err, safely(sub.Close))
	}()
	s.t.report(s.part(s.n), nil)
	s.opened(+1)
	defer s.opened(-1)
	s.tried()
	pauses := backoff.New(firstPause, longestPause)
	var next *message.Message
	for {
		msg := next
		if msg == nil {
			var ok bool
			select {
			case msg, ok = <-in:
				if !ok {
					return worked, s.lost()
				}
			case <-s.stop.Done():
				return worked, nil
			}
		}
		f := s.deliver(msg)
		if f == nil {
			return worked, nil
		}
		var open bool
		next, open = f.await(in)
		switch {
		case f.outcome != nil:
			worked = true
			pauses.Reset()
			if s.stop.Err() != nil {
				f.awaitAck()
				return worked, nil
			}
		case f.settled && !backoff.Sleep(s.stop, pauses.NextBackOff()):
			// It was handed back. What comes again at once would be handed back at once.
			return worked, nil
		}
		if !open {
			return worked, s.lost()
		}
	}
}

// lost says why a channel was closed; nil if that was wanted.
func (s *subscription) lost() error {
	if s.life.Err() != nil {
		return nil
	}
	return errEnded
}

// flight is a message between its delivery and its settlement.
type flight struct {
	*subscription
	msg  *message.Message
	void context.CancelCauseFunc
	done chan struct{} // closed by Settle

	mu      sync.Mutex
	over    bool // settled or void
	settled bool
	outcome *transports.Outcome
}

// deliver hands a message out. It returns nil if nothing may be handed out any more.
func (s *subscription) deliver(msg *message.Message) *flight {
	f := &flight{subscription: s, msg: msg, done: make(chan struct{})}
	d := incoming(msg)
	if s.again(msg.UUID) {
		d.Metadata[transports.Redelivered] = "true"
	}
	// It counts as handed back until it is acked.
	s.remember(msg.UUID, true)
	d.Context, f.void = context.WithCancelCause(context.Background())
	d.Settle = f.settle
	s.taking.Lock()
	defer s.taking.Unlock()
	if s.stop.Err() != nil {
		f.void(transports.ErrVoid)
		return nil
	}
	s.take(d)
	return f
}

// settle is the delivery's Settle.
func (f *flight) settle(o *transports.Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return
	}
	f.over, f.settled, f.outcome = true, true, o
	if o != nil {
		f.remember(f.msg.UUID, false)
		f.msg.Ack()
	} else {
		f.msg.Nack()
	}
	close(f.done)
}

// giveUp makes the delivery void, unless it is settled.
func (f *flight) giveUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over {
		f.over = true
		f.void(transports.ErrVoid)
	}
}

// await returns when the message is settled or void. A message that comes meanwhile is the next one; open says whether
// more can come.
func (f *flight) await(in <-chan *message.Message) (next *message.Message, open bool) {
	defer f.giveUp()
	open = true
	for {
		select {
		case <-f.done:
			return next, open
		case <-f.msg.Context().Done():
			// The Pub/Sub gives the message up before it is settled, or has just been told.
			return next, open
		case msg, ok := <-in:
			if !ok {
				return next, false
			}
			next, in = msg, nil // one is enough
		case <-f.life.Done():
			return next, open
		}
	}
}

// awaitAck waits until the Pub/Sub has sent the ack: Watermill's Pub/Subs end a message's context then. Ending
// the subscription before that could lose it.
func (f *flight) awaitAck() {
	if f.msg.Context().Done() == nil {
		return // this one doesn't
	}
	select {
	case <-f.msg.Context().Done():
	case <-time.After(ackTakes):
	case <-f.life.Done():
	}
}

// incoming makes a delivery of a message, without what belongs to the subscription.
func incoming(msg *message.Message) *transports.Delivery {
	d := &transports.Delivery{UUID: msg.UUID, Payload: msg.Payload, Metadata: make(message.Metadata, len(msg.Metadata)+1)}
	for key, value := range msg.Metadata {
		if name, ok := incomingKey(key); ok {
			d.Metadata[name] = value
		}
	}
	if d.UUID == "" {
		d.UUID = uuid.NewString()
	}
	if d.Metadata[transports.MessageID] == "" {
		d.Metadata[transports.MessageID] = d.UUID
	}
	return d
}
