package memory

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/transports"
)

// memory is the transport.
type memory struct {
	config Config
	env    transports.Env
	taps   transports.Taps
	closed chan struct{}
	work   sync.WaitGroup // subscriptions and taps

	// mu guards the fields below, and all topics and consumers.
	mu          sync.Mutex
	topics      map[string]*topic
	subscribers map[*subscriber]struct{}
}

var (
	_ transports.Transport = (*memory)(nil)
	_ transports.Drainer   = (*memory)(nil)
	_ transports.Tapper    = (*memory)(nil)
	_ prometheus.Collector = (*memory)(nil)
)

func (m *memory) Start(context.Context) error { return nil }

func (m *memory) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	s := &subscriber{memory: m, pipeline: c.Pipeline}
	s.void, s.cancel = context.WithCancelCause(context.Background())
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, fmt.Errorf("making a subscriber for pipeline %s: %w", c.Pipeline, transports.ErrClosed)
	}
	m.subscribers[s] = struct{}{}
	return s, nil
}

func (m *memory) Publisher(transports.Producer) (message.Publisher, error) {
	return &publisher{memory: m, closed: make(chan struct{})}, nil
}

func (m *memory) Health() []transports.Health {
	h := transports.Health{Part: "buffers"}
	if m.isClosed() {
		h.Err = transports.ErrClosed
	}
	return []transports.Health{h}
}

// Quiesce does nothing, because no message comes from outside the host.
func (m *memory) Quiesce() {}

// Drain ends the topic's subscriptions, present and future ones, when they are empty and all their
// messages are settled.
func (m *memory) Drain(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topic(name)
	t.drained = true
	for _, c := range t.consumers {
		c.changed.Signal()
	}
}

// Tap yields copies of published messages. It begins with the messages that were kept because the
// topic has no consumer.
func (m *memory) Tap(ctx context.Context, name string) (<-chan *message.Message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.isClosed() {
		return nil, fmt.Errorf("tapping %s: %w", name, transports.ErrClosed)
	}
	kept := slices.Clone(m.topic(name).kept)
	ctx, cancel := context.WithCancel(ctx)
	live := m.taps.Tap(ctx, name)
	out := make(chan *message.Message)
	show := func(msg *message.Message) bool {
		select {
		case out <- msg:
			return true
		case <-ctx.Done():
		case <-m.closed:
		}
		return false
	}
	m.work.Go(func() {
		defer close(out)
		defer cancel()
		for _, content := range kept {
			if !show(content.Message()) {
				return
			}
		}
		for {
			select {
			case msg, ok := <-live:
				if !ok || !show(msg) {
					return
				}
			case <-m.closed:
				return
			}
		}
	})
	return out, nil
}

func (m *memory) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.isClosed() {
		close(m.closed)
		for s := range m.subscribers {
			s.release()
		}
		m.env.Registerer.Unregister(m)
	}
	m.mu.Unlock()

	done := make(chan struct{})
	go func() {
		m.work.Wait()
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
func (m *memory) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// topic returns the topic of that name, and makes it if needed. The caller has locked m.mu.
func (m *memory) topic(name string) *topic {
	t := m.topics[name]
	if t == nil {
		t = &topic{name: name, turn: make(chan struct{}, 1), room: make(chan struct{}, 1), consumers: map[string]*consumer{}}
		m.topics[name] = t
	}
	return t
}

var messages = prometheus.NewDesc("pentrough_memory_messages", "Messages in a consumer's buffer, waiting and unsettled.",
	[]string{"topic", "pipeline"}, nil)

// Describe implements prometheus.Collector.
func (m *memory) Describe(c chan<- *prometheus.Desc) { c <- messages }

// Collect implements prometheus.Collector.
func (m *memory) Collect(c chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.topics {
		for _, consumer := range t.consumers {
			c <- prometheus.MustNewConstMetric(messages, prometheus.GaugeValue, float64(consumer.size()), t.name, consumer.pipeline)
		}
	}
}
