package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

const (
	// firstAttempt is how long Subscribe waits for the first attempt of each subscription. A
	// Pub/Sub without storage loses messages that are published before a subscription exists.
	firstAttempt = time.Second
	// ackTimeout is how long the Pub/Sub has to send an ack.
	ackTimeout = 5 * time.Second
	// maxUnacked is the most UUIDs of unacked messages that are remembered for a pipeline.
	maxUnacked = 10_000
)

var (
	errEnded   = errors.New("the Pub/Sub ended the subscription")
	errNil     = errors.New("the Pub/Sub delivered a nil message")
	errNoAck   = fmt.Errorf("the Pub/Sub didn't send an ack within %s", ackTimeout)
	errStopped = errors.New("no more messages are wanted")
)

// memory has the UUIDs of a pipeline's messages that were delivered and not acked.
type memory struct {
	mu  sync.Mutex
	ids map[string]struct{}
	// order has the UUIDs in the order in which they were added.
	order []string
}

// add adds a UUID. It reports whether the message was delivered before.
func (m *memory) add(id string) (redelivered bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, redelivered = m.ids[id]; redelivered || id == "" {
		return redelivered
	}
	m.ids[id] = struct{}{}
	if m.order = append(m.order, id); len(m.order) > maxUnacked {
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
	// taking is locked while a message is delivered.
	taking sync.Mutex

	mu         sync.Mutex
	subscribed bool
	open       int // subscriptions that work
}

// Subscribe implements transports.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	done := make(chan struct{})
	tried := make(chan struct{}, s.t.pubsub.Subscriptions)
	if err := s.startSubscriptions(ctx, topic, take, tried, done); err != nil {
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

// startSubscriptions starts a goroutine for each subscription.
func (s *subscriber) startSubscriptions(ctx context.Context, topic string, take func(*transports.Delivery), tried chan<- struct{}, done chan<- struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.life.Err() != nil:
		return transports.ErrClosed
	case s.subscribed:
		return errors.New("it is already subscribed")
	}
	s.subscribed = true
	s.reportPresent()
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

// reportPresent calls Present with whether a subscription works. The caller has locked mu.
func (s *subscriber) reportPresent() {
	if s.consumer.Present != nil {
		s.consumer.Present(s.open > 0)
	}
}

// countOpen changes the number of subscriptions that work.
func (s *subscriber) countOpen(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += change
	s.reportPresent()
}

// subscription is one of a pipeline's subscriptions. It has at most one unsettled message.
//
// It runs one Subscriber after the other (runOnce). Each Subscriber has a reader, which handles
// one message after the other: deliver, wait until it is settled, ack or nack it, and wait until
// the Pub/Sub has sent the ack. While a message is unsettled, the reader may read one message
// ahead, to notice the end of the channel.
type subscription struct {
	*subscriber
	n         int
	topic     string
	take      func(*transports.Delivery)
	stop      context.Context // ends when the host wants no more messages, and with life
	markTried func()          // notes that the first attempt has ended
}

func (s *subscription) partName() string {
	return fmt.Sprintf("subscription %d of %s", s.n+1, s.consumer.Pipeline)
}

// run subscribes until the subscription ends. After a loss it makes another Subscriber.
func (s *subscription) run() {
	defer s.t.removePart(s.partName())
	defer s.markTried()
	pauses := backoff.New(firstPause, longestPause)
	for s.stop.Err() == nil {
		began := time.Now()
		err := s.runOnce()
		if s.stop.Err() != nil {
			return
		}
		s.t.report(s.partName(), err)
		s.markTried()
		if time.Since(began) > longestPause {
			pauses.Reset()
		}
		backoff.Sleep(s.stop, pauses.NextBackOff())
	}
}

// runOnce makes one Subscriber and reads its messages. It returns why that ended.
func (s *subscription) runOnce() error {
	// The context outlives stop, so that an unsettled message can still be acked.
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	sub, in, err := s.t.subscribe(ctx, s.topic, func(log watermill.LoggerAdapter) (message.Subscriber, error) {
		return s.t.pubsub.Subscriber(s.consumer.Pipeline, s.n, log)
	})
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		if err := s.t.callSafely(sub.Close); err != nil {
			s.t.env.Logger.Debug("closing a Subscriber", "err", err)
		}
	}()
	s.t.report(s.partName(), nil)
	s.countOpen(+1)
	defer s.countOpen(-1)
	s.markTried()
	r := reader{subscription: s, in: in, pauses: backoff.New(firstPause, longestPause)}
	defer r.finish()
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

// reader reads the messages of one Subscriber.
type reader struct {
	*subscription
	in     <-chan *message.Message
	pauses backoff.Pauses
	// ahead is a message that was read while the one before it was unsettled, or nil.
	ahead *message.Message
	// acked is the last message, until its ack is sent.
	acked *message.Message
}

// next waits for the next message.
func (r *reader) next() (*message.Message, error) {
	if r.stop.Err() != nil {
		return nil, errStopped
	}
	if msg := r.ahead; msg != nil {
		r.ahead = nil
		r.markAckSent()
		return msg, nil
	}
	var late <-chan time.Time
	if r.acked != nil {
		timer := time.NewTimer(ackTimeout)
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
			r.markAckSent()
			return msg, nil
		case <-sent:
			r.markAckSent()
			late = nil
		case <-late:
			if sent != nil {
				return nil, errNoAck
			}
			late = nil // this Pub/Sub doesn't report when it has sent an ack
		case <-r.stop.Done():
			return nil, errStopped
		}
	}
}

// markAckSent notes that the last ack was sent.
func (r *reader) markAckSent() {
	if r.acked != nil {
		r.unacked.remove(r.acked.UUID)
		r.acked = nil
	}
}

// finish nacks the message that was read ahead, and waits until the last ack is sent. Watermill's
// Pub/Subs then end the context of the message. If the subscription ended earlier, the ack could
// be lost.
func (r *reader) finish() {
	if r.ahead != nil {
		r.ahead.Nack()
	}
	if r.acked == nil || r.acked.Context().Done() == nil {
		return
	}
	select {
	case <-r.acked.Context().Done():
		r.markAckSent()
	case <-time.After(ackTimeout):
	case <-r.life.Done():
	}
}

// handle delivers a message and waits until it is settled.
func (r *reader) handle(msg *message.Message) error {
	f := r.deliver(msg)
	if f == nil {
		msg.Nack()
		return errStopped
	}
	open := r.awaitSettled(f)
	if f.outcome != nil {
		r.acked = msg
		r.pauses.Reset()
	} else if !backoff.Sleep(r.stop, r.pauses.NextBackOff()) {
		// The message is void or was nacked. Without the pause, the redelivered message could fail
		// again at once.
		return errStopped
	}
	if !open {
		return errEnded
	}
	return nil
}

// awaitSettled waits until the message is settled or void. It reports whether more messages can
// come.
func (r *reader) awaitSettled(f *flight) (open bool) {
	defer f.makeVoid()
	in := r.in
	for {
		select {
		case <-f.done:
			return true
		case <-f.msg.Context().Done():
			// The Pub/Sub has abandoned the message, or has just sent its ack.
			return true
		case msg, ok := <-in:
			if !ok || msg == nil {
				return false
			}
			r.ahead, in = msg, nil // read only one ahead
		case <-r.life.Done():
			return true
		}
	}
}

// flight is a delivered message, until it is settled or void.
type flight struct {
	msg  *message.Message
	void context.CancelCauseFunc
	done chan struct{} // closed by Settle

	mu      sync.Mutex
	over    bool                // settled or void
	outcome *transports.Outcome // nil if it is void or was nacked
}

// deliver delivers a message to the host. It returns nil if no more messages may be delivered.
func (s *subscription) deliver(msg *message.Message) *flight {
	f := &flight{msg: msg, done: make(chan struct{})}
	d := incoming(msg)
	// A UUID that is still unacked belongs to a redelivered message.
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

// settle acks the message, or nacks it if o is nil. It is the delivery's Settle.
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

// makeVoid makes the delivery void, unless it is settled.
func (f *flight) makeVoid() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.over {
		f.over = true
		f.void(transports.ErrVoid)
	}
}

// incoming makes a delivery of a message, without the fields of a subscription.
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
