// Package pubsub turns any Watermill Publisher and Subscriber into a transport. With it a pipeline
// can use every broker that Watermill supports.
//
// The author of a plugin writes a [transports.Config] whose Topic method calls [Topic] and whose
// New method calls [New] with a [PubSub]. docs/use-your-broker.md has an example, and explains
// what such a transport guarantees and what it can't.
package pubsub

import (
	"context"
	"errors"
	"fmt"
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

// PubSub has functions that make the parts of a transport. Each function may block, and may be
// called from several goroutines. After an error the transport calls it again. It passes a logger,
// which drops everything after the transport has begun to close the part.
type PubSub struct {
	// Subscriptions is the number of subscriptions of a pipeline, each with one unsettled message;
	// 0 counts as 1. For more than one, the Pub/Sub must share a topic's messages between the
	// subscriptions of a pipeline.
	Subscriptions int
	// Subscriber makes a Subscriber for a pipeline's nth subscription, counted from 0. When the
	// subscription has ended or was lost, the transport closes the Subscriber and makes another
	// one. Nil: nothing can be consumed.
	Subscriber func(pipeline string, n int, log watermill.LoggerAdapter) (message.Subscriber, error)
	// Publisher makes the Publisher, which all pipelines share. When the Publisher has failed for
	// half a minute, the transport closes it and makes another one. Nil: nothing can be published.
	Publisher func(log watermill.LoggerAdapter) (message.Publisher, error)
	// Unsendable reports whether an error of Publish means that the message can never be
	// published, for example because it is too large. The host drops such a message and logs it.
	// After any other error it tries again. It may be nil.
	Unsendable func(error) bool
	// Tap makes a Subscriber that receives copies without consuming messages, for pentrough
	// listen. Nil: topics can't be tapped.
	Tap func(log watermill.LoggerAdapter) (message.Subscriber, error)
	// Close is called last. It may be nil.
	Close func() error
}

// Topic checks the name and the use, and returns t with a Window of at least 1.
func Topic(name string, use transports.Use, t transports.Topic) (transports.Topic, error) {
	switch {
	case use == transports.Return:
		return transports.Topic{}, errors.New("a message can't be put back to its source")
	case name == "":
		return transports.Topic{}, errors.New("a topic needs a name")
	}
	t.Window = max(t.Window, 1)
	return t, nil
}

// New makes the transport. It does no I/O.
func New(env transports.Env, ps PubSub) (transports.Transport, error) {
	ps.Subscriptions = max(ps.Subscriptions, 1)
	t := &transport{
		env: env, pubsub: ps, subscribers: map[*subscriber]struct{}{}, unacked: map[string]*memory{},
		parts: map[string]*outage.Outage{}, done: make(chan struct{}),
	}
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
	// done is closed when everything has ended; err is what closing returned.
	once sync.Once
	done chan struct{}
	err  error

	mu          sync.Mutex
	started     bool
	closed      bool
	subscribers map[*subscriber]struct{}
	unacked     map[string]*memory // by pipeline
	outlet      *outlet            // nil if no pipeline publishes
	parts       map[string]*outage.Outage
}

var (
	_ transports.Transport = (*transport)(nil)
	_ transports.Acceptor  = (*transport)(nil)
)

// Subscriber implements transports.Transport.
func (t *transport) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	if t.pubsub.Subscriber == nil {
		return nil, errors.New("this transport has no Subscriber")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, fmt.Errorf("making a subscriber for pipeline %s: %w", c.Pipeline, transports.ErrClosed)
	}
	if t.unacked[c.Pipeline] == nil {
		t.unacked[c.Pipeline] = &memory{ids: map[string]struct{}{}}
	}
	s := &subscriber{t: t, consumer: c, unacked: t.unacked[c.Pipeline]}
	s.life, s.end = context.WithCancel(t.life)
	t.subscribers[s] = struct{}{}
	return s, nil
}

// Publisher implements transports.Transport.
func (t *transport) Publisher(p transports.Producer) (message.Publisher, error) {
	if t.pubsub.Publisher == nil {
		return nil, errors.New("this transport has no Publisher")
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

// startWork runs f in a goroutine that Close waits for. It returns false, and doesn't run f, if
// the transport is closed.
func (t *transport) startWork(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.work.Go(f)
	}
	return !t.closed
}

// report records whether a part works: err is nil, or why it doesn't.
func (t *transport) report(part string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.parts[part] == nil {
		t.parts[part] = outage.New(t.env.Logger, part)
	}
	t.parts[part].Report(err)
}

// removePart removes a part from the health.
func (t *transport) removePart(part string) {
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
	if t.outlet != nil {
		all = append(all, transports.Health{Part: "publisher", Err: t.outlet.failure()})
	}
	if len(all) == 0 {
		all = append(all, transports.Health{Part: "transport"})
	}
	return all
}

// Accepts implements transports.Acceptor. Some time after a failure it returns nil again, so that
// the next message shows whether the Publisher works.
func (t *transport) Accepts(topic string) error {
	t.mu.Lock()
	o := t.outlet
	t.mu.Unlock()
	if o == nil {
		return nil
	}
	if err := o.refusal(); err != nil {
		return fmt.Errorf("publishing to %s: %w", topic, err)
	}
	return nil
}

// Quiesce implements transports.Transport. Messages come in only by subscriptions, and the host
// ends those.
func (t *transport) Quiesce() {}

// Close implements transports.Transport.
func (t *transport) Close(ctx context.Context) error {
	t.once.Do(func() {
		t.mu.Lock()
		t.closed = true
		subscribers, out := maps.Clone(t.subscribers), t.outlet
		t.mu.Unlock()
		t.end()
		go func() {
			defer close(t.done)
			var closing sync.WaitGroup
			for s := range subscribers {
				closing.Go(func() { _ = s.Close() })
			}
			if out != nil {
				t.err = out.close()
			}
			closing.Wait()
			t.work.Wait()
			if t.pubsub.Close != nil {
				t.err = errors.Join(t.err, t.callSafely(t.pubsub.Close))
			}
		}()
	})
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		return fmt.Errorf("closing the Pub/Sub: %w", context.Cause(ctx))
	}
}

// callSafely calls a function of a Pub/Sub. If it panics, callSafely logs the stack and returns an
// error.
func (t *transport) callSafely(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			t.env.Logger.Error("panic in the Pub/Sub", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return f()
}

// subscribe makes a Subscriber and subscribes.
func (t *transport) subscribe(
	ctx context.Context, topic string, open func(watermill.LoggerAdapter) (message.Subscriber, error),
) (sub message.Subscriber, in <-chan *message.Message, err error) {
	log := newLogger(t.env.Logger)
	err = t.callSafely(func() (err error) {
		if sub, err = open(log); err == nil && sub == nil {
			err = errors.New("the Pub/Sub returned no Subscriber")
		}
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("opening: %w", err)
	}
	sub = quietSubscriber{sub, log}
	err = t.callSafely(func() (err error) {
		if in, err = sub.Subscribe(ctx, topic); err == nil && in == nil {
			err = errors.New("the Pub/Sub returned no channel")
		}
		return err
	})
	if err != nil {
		_ = t.callSafely(sub.Close)
		return nil, nil, fmt.Errorf("subscribing to %s: %w", topic, err)
	}
	return sub, in, nil
}

// tappable is a transport whose topics can be tapped.
type tappable struct{ *transport }

var _ transports.Tapper = (*tappable)(nil)

// Tap implements transports.Tapper.
func (t *tappable) Tap(ctx context.Context, topic string) (<-chan *message.Message, error) {
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(t.life, cancel)
	sub, in, err := t.subscribe(ctx, topic, t.pubsub.Tap)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("tapping %s: %w", topic, err)
	}
	var reader transports.Taps
	out := reader.Tap(ctx, topic)
	copyMessages := func() {
		defer func() { _ = t.callSafely(sub.Close) }()
		defer cancel()
		for {
			select {
			case msg, ok := <-in:
				if !ok || msg == nil {
					return
				}
				msg.Ack()
				reader.Show(topic, incoming(msg).Message())
			case <-ctx.Done():
				return
			}
		}
	}
	if !t.startWork(copyMessages) {
		cancel()
		_ = t.callSafely(sub.Close)
		return nil, fmt.Errorf("tapping %s: %w", topic, transports.ErrClosed)
	}
	return out, nil
}
