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
	// firstAttempt is how long Subscribe waits for its first attempts. A Pub/Sub without storage
	// loses what is published before anyone subscribes.
	firstAttempt = time.Second
	// ackTakes is how long the Pub/Sub has to send an ack.
	ackTakes = 5 * time.Second
	// remembered is how many messages that aren't acked are known by their UUIDs.
	remembered = 10_000
)

var (
	errEnded  = errors.New("the Pub/Sub ended the subscription")
	errNil    = errors.New("the Pub/Sub handed out no message")
	errNoAck  = fmt.Errorf("the Pub/Sub didn't send an ack within %s", ackTakes)
	errWanted = errors.New("no more messages are wanted")
)

// memory has the UUIDs of a pipeline's messages that were handed out and not acked.
type memory struct {
	mu  sync.Mutex
	ids map[string]struct{}
	// order has what was added, the oldest first.
	order []string
}

// add reports whether the message was handed out before.
func (m *memory) add(id string) (again bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, again = m.ids[id]; again || id == "" {
		return again
	}
	m.ids[id] = struct{}{}
	if m.order = append(m.order, id); len(m.order) > remembered {
		delete(m.ids, m.order[0])
		m.order = m.order[1:]
	}
	return false
}

func (m *memory) remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.ids, id)
}

// subscriber runs the subscriptions of one pipeline.
type subscriber struct {
	t        *transport
	consumer transports.Consumer
	unacked  *memory
	life     context.Context // ends with Close
	end      context.CancelFunc
	work     sync.WaitGroup
	// taking is held while a delivery is handed out.
	taking sync.Mutex

	mu         sync.Mutex
	subscribed bool
	open       int // subscriptions that work
}

// Subscribe implements transports.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	done := make(chan struct{})
	tried := make(chan struct{}, s.t.pubsub.Subscriptions)
	if err := s.begin(ctx, topic, take, tried, done); err != nil {
		return nil, fmt.Errorf("subscribing pipeline %s to %s: %w", s.consumer.Pipeline, topic, err)
	}
	timer := time.NewTimer(firstAttempt)
	defer timer.Stop()
	for range cap(tried) {
		select {
		case <-tried:
		case <-timer.C:
			return done, nil
		}
	}
	return done, nil
}

// begin starts the subscriptions.
func (s *subscriber) begin(ctx context.Context, topic string, take func(*transports.Delivery), tried chan<- struct{}, done chan<- struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.life.Err() != nil:
		return transports.ErrClosed
	case s.subscribed:
		return errors.New("it is subscribed")
	}
	s.subscribed = true
	s.present()
	stop, cancel := context.WithCancel(ctx)
	unbind := context.AfterFunc(s.life, cancel)
	var running sync.WaitGroup
	for n := range s.t.pubsub.Subscriptions {
		sub := &subscription{subscriber: s, n: n, topic: topic, take: take, stop: stop}
		sub.markTried = sync.OnceFunc(func() { tried <- struct{}{} })
		running.Go(sub.run)
	}
	s.work.Go(func() {
		running.Wait()
		unbind()
		cancel()
		s.mu.Lock()
		s.subscribed = false
		s.mu.Unlock()
		close(done)
	})
	return nil
}

// Close implements transports.Subscriber.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.work.Wait()
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	delete(s.t.subscribers, s)
	return nil
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

// subscription has one message in flight.
type subscription struct {
	*subscriber
	n         int
	topic     string
	take      func(*transports.Delivery)
	stop      context.Context // ends when no more messages are wanted, and with life
	markTried func()          // the first attempt has ended
}

func (s *subscription) part() string {
	return fmt.Sprintf("subscription %d of %s", s.n+1, s.consumer.Pipeline)
}

// run subscribes, and subscribes again after each loss, until the subscription ends.
func (s *subscription) run() {
	defer s.t.forget(s.part())
	defer s.markTried()
	pauses := backoff.New(firstPause, longestPause)
	for s.stop.Err() == nil {
		began := time.Now()
		err := s.session()
		if s.stop.Err() != nil {
			return
		}
		s.t.report(s.part(), err)
		s.markTried()
		if time.Since(began) > longestPause {
			pauses.Reset()
		}
		backoff.Sleep(s.stop, pauses.NextBackOff())
	}
}

// session subscribes once, and returns why that ended.
func (s *subscription) session() error {
	// It outlives stop, so that what is in flight can still be acked.
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	sub, in, err := s.t.subscribe(ctx, s.topic, func() (message.Subscriber, error) {
		return s.t.pubsub.Subscriber(s.consumer.Pipeline, s.n)
	})
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		if err := s.t.safely(sub.Close); err != nil {
			s.t.env.Logger.Debug("closing a Subscriber", "err", err)
		}
	}()
	s.t.report(s.part(), nil)
	s.opened(+1)
	defer s.opened(-1)
	s.markTried()
	r := reader{subscription: s, in: in, pauses: backoff.New(firstPause, longestPause)}
	defer r.end()
	for {
		msg, err := r.next()
		if err != nil {
			return err
		}
		if err := r.handle(msg); err != nil {
			return err
		}
	}
}

// reader reads the messages of one session.
type reader struct {
	*subscription
	in     <-chan *message.Message
	pauses backoff.Pauses
	// ahead was read while the one before it was in flight; nil if none was.
	ahead *message.Message
	// acked is the last message, until its ack was sent.
	acked *message.Message
}

// next returns the next message.
func (r *reader) next() (*message.Message, error) {
	if r.stop.Err() != nil {
		return nil, errWanted
	}
	if msg := r.ahead; msg != nil {
		r.ahead = nil
		r.ackSent()
		return msg, nil
	}
	var late <-chan time.Time
	if r.acked != nil {
		timer := time.NewTimer(ackTakes)
		defer timer.Stop()
		late = timer.C
	}
	for {
		var sent <-chan struct{}
		if r.acked != nil {
			sent = r.acked.Context().Done()
		}
		select {
		case msg, ok := <-r.in:
			if !ok {
				return nil, errEnded
			}
			if msg == nil {
				return nil, errNil
			}
			r.ackSent()
			return msg, nil
		case <-sent:
			r.ackSent()
			late = nil
		case <-late:
			if sent != nil {
				return nil, errNoAck
			}
			late = nil // this Pub/Sub doesn't say when
		case <-r.stop.Done():
			return nil, errWanted
		}
	}
}

// ackSent notes that the last ack was sent.
func (r *reader) ackSent() {
	if r.acked != nil {
		r.unacked.remove(r.acked.UUID)
		r.acked = nil
	}
}

// end hands back what was read ahead, and waits until the last ack was sent: Watermill's Pub/Subs
// end a message's context then. To end the subscription before that could lose the ack.
func (r *reader) end() {
	if r.ahead != nil {
		r.ahead.Nack()
	}
	if r.acked == nil || r.acked.Context().Done() == nil {
		return
	}
	select {
	case <-r.acked.Context().Done():
		r.ackSent()
	case <-time.After(ackTakes):
	case <-r.life.Done():
	}
}

// handle hands a message out and waits until it is settled.
func (r *reader) handle(msg *message.Message) error {
	f := r.deliver(msg)
	if f == nil {
		msg.Nack()
		return errWanted
	}
	open := r.await(f)
	if f.outcome != nil {
		r.acked = msg
		r.pauses.Reset()
	} else if !backoff.Sleep(r.stop, r.pauses.NextBackOff()) {
		// It is void or was handed back. What comes again at once would end so at once.
		return errWanted
	}
	if !open {
		return errEnded
	}
	return nil
}

// await returns when the message is settled or void, and whether more can come.
func (r *reader) await(f *flight) (open bool) {
	defer f.giveUp()
	in := r.in
	for {
		select {
		case <-f.done:
			return true
		case <-f.msg.Context().Done():
			// The Pub/Sub gave the message up, or has just sent its ack.
			return true
		case msg, ok := <-in:
			if !ok || msg == nil {
				return false
			}
			r.ahead, in = msg, nil // one is enough
		case <-r.life.Done():
			return true
		}
	}
}

// flight is a message between its delivery and its settlement.
type flight struct {
	msg  *message.Message
	void context.CancelCauseFunc
	done chan struct{} // closed by Settle

	mu      sync.Mutex
	over    bool                // settled or void
	outcome *transports.Outcome // nil if it is void or was handed back
}

// deliver hands a message out. It returns nil if nothing may be handed out any more.
func (s *subscription) deliver(msg *message.Message) *flight {
	f := &flight{msg: msg, done: make(chan struct{})}
	d := incoming(msg)
	// Until it is acked, a second arrival is a redelivery.
	if s.unacked.add(msg.UUID) {
		d.Metadata[transports.Redelivered] = "true"
	}
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
	f.over, f.outcome = true, o
	if o != nil {
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
