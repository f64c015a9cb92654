package schedule

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/transports"
)

// clock is the transport.
type clock struct {
	env  transports.Env
	taps transports.Taps
	// ticking ends with Quiesce.
	ticking context.Context
	quiesce context.CancelFunc
	closed  chan struct{}
	work    sync.WaitGroup // topics and subscriptions

	// mu guards the fields below, and all topics and consumers.
	mu          sync.Mutex
	topics      map[string]*topic
	subscribers map[*subscriber]struct{}
	started     bool
}

var (
	_ transports.Transport = (*clock)(nil)
	_ transports.Tapper    = (*clock)(nil)
	_ prometheus.Collector = (*clock)(nil)
)

// Subscriber implements transports.Transport.
func (k *clock) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	s := &subscriber{clock: k, pipeline: c.Pipeline}
	s.void, s.cancel = context.WithCancelCause(context.Background())
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isClosed() {
		return nil, fmt.Errorf("making a subscriber for pipeline %s: %w", c.Pipeline, transports.ErrClosed)
	}
	k.subscribers[s] = struct{}{}
	return s, nil
}

// Publisher returns an error, because nothing can be published to a clock.
func (k *clock) Publisher(p transports.Producer) (message.Publisher, error) {
	return nil, fmt.Errorf("making a publisher for pipeline %s: nothing can be published to a schedule", p.Pipeline)
}

// Start starts the topics' goroutines.
func (k *clock) Start(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.isClosed():
		return fmt.Errorf("starting to tick: %w", transports.ErrClosed)
	case k.started:
		return nil
	}
	k.started = true
	for _, t := range k.topics {
		k.work.Go(func() { t.run(k.ticking) })
	}
	return nil
}

// Health implements transports.Transport. A clock always works.
func (k *clock) Health() []transports.Health {
	h := transports.Health{Part: "clock"}
	if k.isClosed() {
		h.Err = transports.ErrClosed
	}
	return []transports.Health{h}
}

// Quiesce stops the ticks. After it no tick becomes due, and no waiting tick is delivered.
func (k *clock) Quiesce() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.quiesce()
}

// Tap yields the topic's ticks when they are due, also if the topic has no consumer.
func (k *clock) Tap(ctx context.Context, name string) (<-chan *message.Message, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.topics[name] == nil:
		return nil, fmt.Errorf("tapping %s: there is no such topic", name)
	case k.isQuiet():
		return nil, fmt.Errorf("tapping %s: %w", name, transports.ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(k.ticking, cancel)
	context.AfterFunc(ctx, func() {
		stop()
		cancel()
	})
	return k.taps.Tap(ctx, name), nil
}

// Close implements transports.Transport.
func (k *clock) Close(ctx context.Context) error {
	k.mu.Lock()
	if !k.isClosed() {
		k.quiesce()
		close(k.closed)
		for s := range k.subscribers {
			s.release()
		}
		k.env.Registerer.Unregister(k)
	}
	k.mu.Unlock()

	done := make(chan struct{})
	go func() {
		k.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for subscriptions to end: %w", context.Cause(ctx))
	}
}

// isClosed reports whether the transport is closed.
func (k *clock) isClosed() bool {
	select {
	case <-k.closed:
		return true
	default:
		return false
	}
}

// isQuiet reports whether Quiesce was called.
func (k *clock) isQuiet() bool { return k.ticking.Err() != nil }

var (
	ticks  = prometheus.NewDesc("pentrough_schedule_ticks_total", "Ticks that a topic made.", []string{"topic"}, nil)
	missed = prometheus.NewDesc("pentrough_schedule_missed_total",
		"Ticks that a pipeline missed: the tick before was unsettled, a newer tick replaced a nacked one, or the host was stopped.",
		[]string{"topic", "pipeline"}, nil)
)

// Describe implements prometheus.Collector.
func (k *clock) Describe(c chan<- *prometheus.Desc) {
	c <- ticks
	c <- missed
}

// Collect implements prometheus.Collector.
func (k *clock) Collect(c chan<- prometheus.Metric) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.topics {
		c <- prometheus.MustNewConstMetric(ticks, prometheus.CounterValue, float64(t.made), t.name)
		for _, user := range t.consumers {
			c <- prometheus.MustNewConstMetric(missed, prometheus.CounterValue, float64(user.missed), t.name, user.pipeline)
		}
	}
}
