// Package pubsub makes a transport of any Watermill Publisher and Subscriber, so that a pipeline can use a broker for
// which Watermill has a Pub/Sub.
//
// The author of a plugin writes a [transports.Config] whose Topic method calls [Topic] and whose New method calls [New]
// with a [PubSub]. The transport opens the Pub/Sub in the background, opens it again after every failure, and keeps one
// message in flight for each subscription.
//
// # What such a transport promises
//
// A message is acked after its pipeline has handled it and what it produced has arrived, so it runs at least once, as far
// as the Pub/Sub gives an unacked message again. With one subscription the messages of a pipeline run in the order in which
// the Pub/Sub hands them out.
//
// # What it can't promise
//
//   - Order after a nack, or after a subscription was lost, is the Pub/Sub's: many give a nacked message again behind newer
//     ones.
//   - Order over several subscriptions: two messages of one device may run at the same time.
//   - How often a message was delivered: Watermill has no such count. A message has the metadata redelivered = "true" only if
//     this process had it before.
//   - That a published message is stored when Publish returns: some Publishers return earlier.
//   - Headers in their own types: Watermill's metadata are text.
package pubsub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

// The pauses between attempts to open something.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second
)

// PubSub says how to make the parts of a transport. The functions may block and may fail; they are called again until
// they work. They are called from several goroutines.
type PubSub struct {
	// Subscriptions is how many subscriptions a pipeline has, and so how many of its messages are in flight; 0 counts as 1.
	// More than one needs a Pub/Sub that shares a topic's messages between the subscriptions of a pipeline.
	Subscriptions int
	// Subscriber makes a Subscriber for a pipeline's nth subscription, counted from 0. It is closed when that has ended
	// or was lost, and another one is made. Nil: nothing can be consumed.
	Subscriber func(pipeline string, n int) (message.Subscriber, error)
	// Publisher makes the Publisher, which all pipelines share. Nil: nothing can be published.
	Publisher func() (message.Publisher, error)
	// Unsendable says whether an error of Publish means that the message can never be published, such as one that is too
	// large. The host drops such a message and logs it; with any other error it tries again. It may be nil.
	Unsendable func(error) bool
	// Tap makes a Subscriber that gets copies and takes nothing away from anybody, for pentrough listen. Nil: topics
	// can't be tapped.
	Tap func() (message.Subscriber, error)
	// Close is called last. It may be nil.
	Close func() error
}

// Topic returns t for a name and a use that such a transport has, with the window that t has, or of one.
func Topic(name string, use transports.Use, t transports.Topic) (transports.Topic, error) {
	switch {
	case use == transports.Return:
		return transports.Topic{}, errors.New("messages can't be put back to where they came from")
	case name == "":
		return transports.Topic{}, errors.New("a topic needs a name")
	}
	t.Window = max(t.Window, 1)
	return t, nil
}

// Logger returns a logger for the parts of a [PubSub]. What Watermill calls information is debug here, and so is an
// error that comes of the end of a subscription.
func Logger(env transports.Env) watermill.LoggerAdapter {
	return logger{watermill.NewSlogLoggerWithLevelMapping(env.Logger, map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug})}
}

type logger struct{ watermill.LoggerAdapter }

// Error implements watermill.LoggerAdapter.
func (l logger) Error(text string, err error, fields watermill.LogFields) {
	if errors.Is(err, context.Canceled) {
		l.Debug(text, fields.Add(watermill.LogFields{"err": err}))
		return
	}
	l.LoggerAdapter.Error(text, err, fields)
}

// With implements watermill.LoggerAdapter.
func (l logger) With(fields watermill.LogFields) watermill.LoggerAdapter {
	return logger{l.LoggerAdapter.With(fields)}
}

// New makes the transport. It does no I/O.
func New(env transports.Env, ps PubSub) (transports.Transport, error) {
	ps.Subscriptions = max(ps.Subscriptions, 1)
	t := &transport{env: env, pubsub: ps, parts: map[string]*outage.Outage{}}
	t.life, t.end = context.WithCancel(context.Background())
	if ps.Tap != nil {
		return &tappable{t}, nil
	}
	return t, nil
}

type transport struct {
	env    transports.Env
	pubsub PubSub
	// life ends with Close.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu          sync.Mutex
	started     bool
	closed      bool
	subscribers []*subscriber
	outlet      *outlet // nil if nobody publishes
	parts       map[string]*outage.Outage
}

var (
	_ transports.Transport = (*transport)(nil)
	_ transports.Acceptor  = (*transport)(nil)
)

// Subscriber implements transports.Transport.
func (t *transport) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	if t.pubsub.Subscriber == nil {
		return nil, errors.New("nothing can be consumed from it")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("making a subscriber for pipeline %s: %w", c.Pipeline, transports.ErrClosed)
	}
	s := &subscriber{t: t, consumer: c}
	s.life, s.end = context.WithCancel(t.life)
	t.subscribers = append(t.subscribers, s)
	return s, nil
}

// Publisher implements transports.Transport.
func (t *transport) Publisher(p transports.Producer) (message.Publisher, error) {
	if t.pubsub.Publisher == nil {
		return nil, errors.New("nothing can be published to it")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("making a publisher for pipeline %s: %w", p.Pipeline, transports.ErrClosed)
	}
	if t.outlet == nil {
		t.outlet = &outlet{t: t, ready: make(chan struct{})}
		if t.started {
			t.work.Go(t.outlet.connect)
		}
	}
	return &publisher{outlet: t.outlet}, nil
}

// Start implements transports.Transport.
func (t *transport) Start(context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return fmt.Errorf("starting: %w", transports.ErrClosed)
	case t.started:
		return nil
	}
	t.started = true
	if t.outlet != nil {
		t.work.Go(t.outlet.connect)
	}
	return nil
}

// goes runs f in a goroutine that Close waits for. It is false if the transport is closed.
func (t *transport) goes(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.work.Go(f)
	}
	return !t.closed
}

// report notes that a part works, or why it doesn't.
func (t *transport) report(part string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.parts[part] == nil {
		t.parts[part] = outage.New(t.env.Logger, part)
	}
	t.parts[part].Report(err)
}

// forget takes a part out of the health.
func (t *transport) forget(part string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.parts, part)
}

// Health implements transports.Transport.
func (t *transport) Health() []transports.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return []transports.Health{{Part: "transport", Err: transports.ErrClosed}}
	}
	var all []transports.Health
	for _, part := range slices.Sorted(maps.Keys(t.parts)) {
		all = append(all, transports.Health{Part: part, Err: t.parts[part].Err()})
	}
	if len(all) == 0 {
		all = append(all, transports.Health{Part: "transport"})
	}
	return all
}

// Accepts implements transports.Acceptor.
func (t *transport) Accepts(topic string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if state := t.parts[outletPart]; state != nil && state.Down() {
		return fmt.Errorf("publishing to %s: %w", topic, state.Err())
	}
	return nil
}

// Quiesce implements transports.Transport. Nothing comes in but what a subscription takes, and the host ends those.
func (t *transport) Quiesce() {}

// Close implements transports.Transport.
func (t *transport) Close(ctx context.Context) error {
	t.mu.Lock()
	again := t.closed
	t.closed = true
	subscribers, out := t.subscribers, t.outlet
	t.mu.Unlock()
	t.end()
	var errs []error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range subscribers {
			errs = append(errs, s.Close())
		}
		if out != nil && !again {
			errs = append(errs, out.close())
		}
		t.work.Wait()
		if t.pubsub.Close != nil && !again {
			errs = append(errs, safely(t.pubsub.Close))
		}
	}()
	select {
	case <-done:
		return errors.Join(errs...)
	case <-ctx.Done():
		return fmt.Errorf("closing the Pub/Sub: %w", context.Cause(ctx))
	}
}

// tappable is a transport whose topics can be tapped.
type tappable struct{ *transport }

var _ transports.Tapper = (*tappable)(nil)

// Tap implements transports.Tapper.
func (t *tappable) Tap(ctx context.Context, topic string) (<-chan *message.Message, error) {
	var sub message.Subscriber
	var in <-chan *message.Message
	err := safely(func() (err error) {
		if sub, err = t.pubsub.Tap(); err == nil {
			in, err = sub.Subscribe(ctx, topic)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("tapping %s: %w", topic, err)
	}
	out := make(chan *message.Message)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.life, cancel)
	started := t.goes(func() {
		defer close(out)
		defer func() { _ = safely(sub.Close) }()
		defer stop()
		defer cancel()
		show(ctx, in, out)
	})
	if !started {
		cancel()
		_ = safely(sub.Close)
		return nil, fmt.Errorf("tapping %s: %w", topic, transports.ErrClosed)
	}
	return out, nil
}

// show passes copies on until ctx ends.
func show(ctx context.Context, in <-chan *message.Message, out chan<- *message.Message) {
	for {
		select {
		case msg, ok := <-in:
			if !ok {
				return
			}
			msg.Ack()
			select {
			case out <- incoming(msg).Message():
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// safely calls into a Pub/Sub; its panic is an error.
func safely(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return f()
}
