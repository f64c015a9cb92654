package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// fakeSystem is a transport whose topics are queues in memory. Tests fill, void and read them, and
// make them fail.
type fakeSystem struct {
	traits transports.Topic

	mu         sync.Mutex
	subs       []*fakeSubscription
	queue      []*sent  // waits for a subscription
	settled    []string // "ack ID" and "nack ID" in order
	published  []*message.Message
	topics     []string
	publishErr error
	attempts   int
	quiesced   bool
	opened     int
	numbers    int
}

// sent is a message that a test put into a topic.
type sent struct {
	transports.Delivery // the first delivery; its Context is the sender's
	// outcome receives the outcome with which the delivery was settled; nil is a nack.
	outcome chan *transports.Outcome
	number  int
}

func newSent(payload string, metadata ...string) *sent {
	s := &sent{outcome: make(chan *transports.Outcome, 1)}
	s.UUID, s.Payload, s.Metadata, s.Context = uuid.NewString(), []byte(payload), message.Metadata{}, context.Background()
	for i := 0; i < len(metadata); i += 2 {
		s.Metadata[metadata[i]] = metadata[i+1]
	}
	return s
}

type fakeSubscription struct {
	system *fakeSystem
	life   context.Context
	void   context.CancelCauseFunc
	take   func(*transports.Delivery)
	end    func() // ends the subscription's own share of open

	mu   sync.Mutex
	open int           // one for the subscription, one for each unsettled message
	over chan struct{} // closed when open is 0
}

// addOpen adds an unsettled message. It returns false if the subscription is over.
func (s *fakeSubscription) addOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open > 0 {
		s.open++
	}
	return s.open > 0
}

func (s *fakeSubscription) removeOpen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 {
		close(s.over)
	}
}

func newSystem(window int) *fakeSystem {
	return &fakeSystem{traits: transports.Topic{Window: window, Broker: true}}
}

func (f *fakeSystem) Topic(string, transports.Use) (transports.Topic, error) { return f.traits, nil }
func (f *fakeSystem) New(transports.Env) (transports.Transport, error)       { return f, nil }
func (f *fakeSystem) Start(context.Context) error                            { return nil }
func (f *fakeSystem) Health() []transports.Health                            { return nil }
func (f *fakeSystem) Close(context.Context) error                            { return nil }
func (f *fakeSystem) Quiesce()                                               { f.quiesced = true }
func (f *fakeSystem) Publisher(transports.Producer) (message.Publisher, error) {
	return fakePublisher{f}, nil
}

func (f *fakeSystem) Subscriber(transports.Consumer) (transports.Subscriber, error) {
	return &fakeSubscriber{system: f}, nil
}

type fakeSubscriber struct {
	system *fakeSystem
	mu     sync.Mutex
	subs   []*fakeSubscription
}

func (s *fakeSubscriber) Subscribe(ctx context.Context, _ string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	f := s.system
	sub := &fakeSubscription{system: f, take: take, open: 1, over: make(chan struct{})}
	sub.life, sub.void = context.WithCancelCause(context.Background())
	sub.end = sync.OnceFunc(sub.removeOpen)
	context.AfterFunc(ctx, sub.end)
	done := make(chan struct{})
	go func() {
		<-sub.over
		sub.void(transports.ErrVoid)
		close(done)
	}()
	s.mu.Lock()
	s.subs = append(s.subs, sub)
	s.mu.Unlock()
	f.mu.Lock()
	f.opened++
	f.subs = append(f.subs, sub)
	waiting := f.queue
	f.queue = nil
	f.mu.Unlock()
	for _, msg := range waiting {
		f.deliver(sub, msg)
	}
	return done, nil
}

func (s *fakeSubscriber) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subs {
		s.system.cut(sub)
	}
	return nil
}

// send puts a message into the queue, which delivers it to the current subscription.
func (f *fakeSystem) send(key, id string, metadata ...string) *sent {
	return f.put(newSent(key+" "+id, append(metadata, transports.Device, key, transports.MessageID, id)...))
}

func (f *fakeSystem) put(msg *sent) *sent {
	f.mu.Lock()
	f.numbers++
	msg.number = f.numbers
	if len(f.subs) == 0 {
		f.queue = append(f.queue, msg)
		f.mu.Unlock()
		return msg
	}
	sub := f.subs[len(f.subs)-1]
	f.mu.Unlock()
	f.deliver(sub, msg)
	return msg
}

// deliver delivers msg with a context that ends with the subscription, or with its sender's
// context.
func (f *fakeSystem) deliver(sub *fakeSubscription, msg *sent) {
	d := msg.Delivery
	ended := sub.life
	if msg.Context.Done() != nil {
		var cancel context.CancelCauseFunc
		ended, cancel = context.WithCancelCause(sub.life)
		context.AfterFunc(msg.Context, func() { cancel(context.Cause(msg.Context)) })
	}
	d.Context = ended
	if !sub.addOpen() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.queue = append(f.queue, msg)
		return
	}
	var once sync.Once
	requeue := context.AfterFunc(ended, func() {
		once.Do(func() {
			defer sub.removeOpen()
			f.mu.Lock()
			defer f.mu.Unlock()
			again := &sent{Delivery: msg.Delivery, outcome: msg.outcome, number: msg.number}
			again.Context, again.Metadata = context.Background(), maps.Clone(msg.Metadata)
			again.Metadata[transports.Redelivered] = "true"
			f.queue = append(f.queue, again)
			slices.SortFunc(f.queue, func(a, b *sent) int { return a.number - b.number })
		})
	})
	d.Settle = func(o *transports.Outcome) {
		if ended.Err() != nil {
			return
		}
		once.Do(func() {
			defer sub.removeOpen()
			requeue()
			what := "ack "
			if o == nil {
				what = "nack "
			}
			f.note(what + d.Metadata[transports.MessageID])
			msg.outcome <- o
		})
	}
	sub.take(&d)
}

func (f *fakeSystem) note(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = append(f.settled, what)
}

// cut ends a subscription at once. Its unsettled deliveries become void, and the next subscription
// gets the messages.
func (f *fakeSystem) cut(sub *fakeSubscription) {
	f.mu.Lock()
	f.subs = slices.DeleteFunc(f.subs, func(s *fakeSubscription) bool { return s == sub })
	f.mu.Unlock()
	sub.void(transports.ErrVoid)
	sub.end()
}

func (f *fakeSystem) settlements() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.settled)
}

// outputs returns the payloads of the published messages, in order.
func (f *fakeSystem) outputs() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for i, msg := range f.published {
		all = append(all, f.topics[i]+" "+string(msg.Payload))
	}
	return all
}

// lose removes the messages that wait for a subscription, as if another host had consumed them.
func (f *fakeSystem) lose() {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = nil
}

func (f *fakeSystem) failPublishing(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publishErr = err
}

type fakePublisher struct{ *fakeSystem }

func (p fakePublisher) Publish(topic string, msgs ...*message.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts++
	if p.publishErr != nil {
		return p.publishErr
	}
	for _, msg := range msgs {
		p.published = append(p.published, msg)
		p.topics = append(p.topics, topic)
	}
	return nil
}

func (p fakePublisher) Close() error { return nil }

// draining adds transports.Drainer to a system: its subscriptions end when they are empty.
type draining struct{ *fakeSystem }

func (d draining) New(transports.Env) (transports.Transport, error) { return d, nil }

func (d draining) Drain(string) {
	d.mu.Lock()
	subs := d.subs
	d.subs = nil
	d.mu.Unlock()
	for _, sub := range subs {
		sub.end()
	}
}

// handlerFunc is a handler that calls a function. It is its own configuration.
type handlerFunc func(msg *message.Message) ([]*message.Message, error)

func (f handlerFunc) New(handlers.Env) (handlers.Handler, error)              { return f, nil }
func (f handlerFunc) Handle(msg *message.Message) ([]*message.Message, error) { return f(msg) }

// refusingHandler is a handlerFunc that can refuse messages. It then produces "refused ID:
// REASON".
type refusingHandler struct{ handlerFunc }

func (r refusingHandler) New(handlers.Env) (handlers.Handler, error) { return r, nil }

func (r refusingHandler) Refuse(ctx context.Context, _ *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	return []*message.Message{handlers.NewMessage(fmt.Appendf(nil, "refused %s: %s", handlers.Described(ctx).ID, reason))}, nil
}

// middlewareFunc is a middleware that calls a function. It is its own configuration.
type middlewareFunc func(message.HandlerFunc) message.HandlerFunc

func (f middlewareFunc) New(middleware.Env) (middleware.Middleware, error) { return f, nil }
func (f middlewareFunc) Wrap(next message.HandlerFunc) message.HandlerFunc { return f(next) }

// echo produces one message with the input's payload.
func echo(msg *message.Message) ([]*message.Message, error) {
	return []*message.Message{handlers.NewMessage(msg.Payload)}, nil
}

// harness is a host with one pipeline, "test", from in:commands to out:results.
type harness struct {
	*Host
	t       *testing.T
	in, out *fakeSystem
}

func newHarness(t *testing.T, h handlers.Config, change ...func(*Config)) *harness {
	t.Helper()
	in, out := newSystem(16), newSystem(16)
	c := Config{
		Name: "host", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Transports: []Transport{{Name: "in", Config: in}, {Name: "out", Config: out}},
		Pipelines: []Pipeline{{
			Name: "test", From: "in:commands", To: "out:results", Handler: Handler{Type: "func", Config: h},
			DropErrors: true, Lanes: DefaultLanes, Batch: DefaultBatch,
		}},
	}
	for _, f := range change {
		f(&c)
	}
	host, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &harness{host, t, in, out}
}

// stop stops the host, and fails the test if Stop returns an error.
func (h *harness) stop() {
	h.t.Helper()
	if err := h.Stop(context.Background()); err != nil {
		h.t.Error(err)
	}
}

func lanesOf(f func(*Lanes)) func(*Config) {
	return func(c *Config) { f(&c.Pipelines[0].Lanes) }
}

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// counts returns the number of subscriptions and of attempts to publish.
func (f *fakeSystem) counts() (opened, attempts int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened, f.attempts
}

// pass lets time pass in a bubble, and waits until all its goroutines are blocked.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

var errBroken = errors.New("broken")
