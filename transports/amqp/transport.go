package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// transport is one broker, with two connections (link.go). Subscriptions use the consumer
// connection, and the outbox uses the publisher connection.
type transport struct {
	env       transports.Env
	config    *Config
	metrics   *metrics
	marshaler *marshaler
	topics    *topicStates

	consumer  *link
	publisher *link
	outbox    *outbox
	answers   *replyCopies
	requests  *requests
	sharing   *sharing

	// consumers are the consumers of all subscriptions.
	consumers consumers
	// routes finds the *route of a topic.
	routes sync.Map
	// tags counts consumers, to make their tags unique.
	tags atomic.Int64
	// checkInterval is the time between two checks of the topics in use.
	checkInterval time.Duration
	// closeTimeout bounds a Close, even if the broker doesn't answer.
	closeTimeout time.Duration

	// taking ends when subscriptions take no more messages. consuming ends when all subscriptions
	// must end at once. closing ends when the connections must end.
	taking        context.Context
	quiesce       context.CancelFunc
	consuming     context.Context
	stopConsuming context.CancelFunc
	closing       context.Context
	close         context.CancelFunc

	mu            sync.Mutex
	closed        bool
	started       bool
	consumed      map[*route]int // the number of subscriptions of each topic
	subscriptions sync.WaitGroup
	running       sync.WaitGroup
}

var (
	_ transports.Config    = (*Config)(nil)
	_ transports.Transport = (*transport)(nil)
	_ transports.Tapper    = (*transport)(nil)
	_ transports.Answerer  = (*transport)(nil)
	_ transports.Acceptor  = (*transport)(nil)
)

// errClosedTransport says that there is no connection because the transport is closed.
var errClosedTransport = fmt.Errorf("the transport is %w", transports.ErrClosed)

// New implements transports.Config.
func (c *Config) New(env transports.Env) (transports.Transport, error) {
	e, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(env.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	d := &dialer{
		config:     c,
		endpoint:   e,
		name:       orDefault(c.ConnectionName, fmt.Sprintf("pentrough %s %s", env.Host, env.Name)),
		unreadable: m.unreadable.Inc,
	}
	o := newConnectivity(env.Logger.With("broker", e.addr))
	t := &transport{
		env:           env,
		config:        c,
		metrics:       m,
		marshaler:     &marshaler{now: env.Now, user: e.username, largest: c.MaxMessage, unsendable: m.unsendable},
		topics:        newTopicStates(env.Logger),
		consumer:      newLink(consumerRole, d, o, m),
		publisher:     newLink(publisherRole, d, o, m),
		checkInterval: checkInterval,
		closeTimeout:  closeTimeout,
		consumed:      map[*route]int{},
	}
	d.consumers = &t.consumers
	t.outbox = newOutbox(t)
	t.answers = newReplyCopies(t)
	t.requests = newRequests(t)
	t.sharing = newSharing(env.Logger, c.Heartbeat)
	t.closing, t.close = context.WithCancel(context.Background())
	t.consuming, t.stopConsuming = context.WithCancel(t.closing)
	t.taking, t.quiesce = context.WithCancel(t.consuming)
	return t, nil
}

// Subscriber implements transports.Transport.
func (t *transport) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	s := &subscriber{t: t, pipeline: c.Pipeline, competing: c.Competing, present: c.Present}
	s.killed, s.killNow = context.WithCancel(t.consuming)
	return s, nil
}

// Publisher implements transports.Transport. The host declares the producer's topic as soon as
// there is a connection.
func (t *transport) Publisher(producer transports.Producer) (message.Publisher, error) {
	if producer.Use == transports.Return {
		return &origin{t: t}, nil
	}
	p := &publisher{t: t, topics: map[string]*declaration{}}
	if producer.Topic != "" {
		if _, err := p.needDeclaration(producer.Topic); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Accepts implements transports.Acceptor.
func (t *transport) Accepts(topic string) error {
	if _, err := t.route(topic); err != nil {
		return err
	}
	return t.outbox.checkTopic(topic)
}

// Start implements transports.Transport. It begins to connect.
func (t *transport) Start(context.Context) error {
	t.mu.Lock()
	started := t.started
	t.started = true
	t.mu.Unlock()
	if started {
		return nil
	}
	for _, run := range []func(context.Context){t.consumer.run, t.publisher.run, t.outbox.run, t.answers.run, t.restoreTopics, t.watchQueues} {
		if !t.startGoroutine(func() { run(t.closing) }) {
			return fmt.Errorf("starting: %w", transports.ErrClosed)
		}
	}
	return nil
}

// Health implements transports.Transport.
func (t *transport) Health() []transports.Health {
	_, _, _, consumer := t.consumer.currentState()
	_, blocked, _, publisher := t.publisher.currentState()
	retrying := func(err error) error {
		if err == nil {
			return nil
		}
		return fmt.Errorf("%w; retrying", err)
	}
	parts := []transports.Health{
		{Part: "consumer connection", Err: retrying(consumer)},
		{Part: "publisher connection", Err: retrying(publisher)},
	}
	if blocked != "" {
		parts[1].Err = fmt.Errorf("the broker blocks publishing (%s); messages wait", blocked)
	}
	for _, h := range t.topics.health() {
		if errors.Is(h.Err, errNotConsumed) && consumer != nil {
			continue // the part "consumer connection" says why
		}
		h.Err = retrying(h.Err)
		parts = append(parts, h)
	}
	return append(parts, t.sharing.health()...)
}

// Quiesce implements transports.Transport. Subscriptions take no more messages, and end when their
// deliveries are settled.
func (t *transport) Quiesce() { t.quiesce() }

// Close implements transports.Transport. It takes at most closeTimeout, even if the broker doesn't
// answer.
func (t *transport) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.closeTimeout)
	defer cancel()
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	// Queued acks are written and channels are closed before the connections end. A broker that
	// doesn't answer has half of the time for that.
	t.stopConsuming()
	deadline, _ := ctx.Deadline()
	orderly, done := context.WithTimeout(ctx, time.Until(deadline)/2)
	defer done()
	_ = waitGroup(orderly, &t.subscriptions)
	t.close()
	if err := errors.Join(waitGroup(ctx, &t.running), waitGroup(ctx, &t.subscriptions)); err != nil {
		return fmt.Errorf("closing the connections: %w", err)
	}
	return nil
}

// startGoroutine runs f on a goroutine that Close waits for. It returns false after Close.
func (t *transport) startGoroutine(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(f)
	return true
}

// startSubscription is startGoroutine for the subscriptions to a topic. Close ends them first.
func (t *transport) startSubscription(r *route, f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.consumed[r]++
	t.subscriptions.Go(func() {
		f()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.consumed[r]--; t.consumed[r] == 0 {
			delete(t.consumed, r)
		}
	})
	return true
}

// waitGroup waits for a group until ctx ends.
func waitGroup(ctx context.Context, g *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		g.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// route returns the route of a topic, the same one at each call.
func (t *transport) route(topic string) (*route, error) {
	if r, ok := t.routes.Load(topic); ok {
		return r.(*route), nil
	}
	if err := checkName(topic); err != nil {
		return nil, fmt.Errorf("topic %q: as a queue's name it %w", topic, err)
	}
	r, err := t.config.route(topic)
	if err != nil {
		return nil, err
	}
	r.counters = t.metrics.topicCounters(topic)
	kept, _ := t.routes.LoadOrStore(topic, r)
	return kept.(*route), nil
}
