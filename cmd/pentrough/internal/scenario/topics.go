package scenario

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// topics is the fake of a transport that has only topics, such as one to a broker. A topic has the
// properties that the configuration of the real transport describes: its window, and which
// pipelines share its messages. A message that is published to a topic is recorded, and it goes to
// the consumers of the topic.
type topics struct {
	transports.Config // describes topics
	name              string
	record            *record

	mu sync.Mutex
	// changed wakes the subscriptions because there may be new messages.
	changed     sync.Cond
	consumers   []*consumer
	subscribers []*subscriber
	closed      bool
}

func newTopics(config transports.Config, name string, r *record) *topics {
	t := &topics{Config: config, name: name, record: r}
	t.changed.L = &t.mu
	return t
}

// consumer gets each message of a topic. It is one pipeline, or several pipelines that share a
// stream.
type consumer struct {
	stream  string
	topics  []string
	members []string // names of the pipelines
	queue   []*item
	count   int // number of messages that it got
}

// item is a message that isn't settled.
type item struct {
	number int // number of the message in its consumer
	msg    *message.Message
	again  bool
	// settle is called with the outcome. It may be nil.
	settle func(*transports.Outcome)
}

var _ transports.Transport = (*topics)(nil)

// New implements transports.Config: the fake is its own configuration.
func (t *topics) New(transports.Env) (transports.Transport, error) { return t, nil }

func (t *topics) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &subscriber{topics: t, pipeline: c.Pipeline}
	s.void, s.cancel = context.WithCancelCause(context.Background())
	t.subscribers = append(t.subscribers, s)
	return s, nil
}

func (t *topics) Publisher(transports.Producer) (message.Publisher, error) {
	return &producer{topics: t}, nil
}
func (t *topics) Start(context.Context) error { return nil }
func (t *topics) Health() []transports.Health { return []transports.Health{{Part: "fake"}} }
func (t *topics) Quiesce()                    {}

func (t *topics) Close(context.Context) error {
	t.mu.Lock()
	t.closed = true
	subscribers := t.subscribers
	t.mu.Unlock()
	for _, s := range subscribers {
		_ = s.Close() // never fails
	}
	return nil
}

type producer struct {
	*topics
	over atomic.Bool
}

func (p *producer) Publish(topic string, msgs ...*message.Message) error {
	p.mu.Lock()
	closed := p.topics.closed
	p.mu.Unlock()
	if closed || p.over.Load() {
		return fmt.Errorf("publishing to %s: %w", topic, transports.ErrClosed)
	}
	for _, msg := range msgs {
		if err := msg.Context().Err(); err != nil {
			return fmt.Errorf("publishing to %s: %w", topic, err)
		}
		p.record.message(p.name+":"+topic, msg)
		p.put(topic, "", msg, nil)
	}
	return nil
}

func (p *producer) Close() error {
	p.over.Store(true)
	return nil
}

// put sends a copy of msg to the consumers of a topic. If pipeline isn't empty, only the consumer
// with that pipeline gets it. put calls settle, which may be nil, with the outcome of each copy.
func (t *topics) put(topic, pipeline string, msg *message.Message, settle func(*transports.Outcome)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.consumers {
		if slices.Contains(c.topics, topic) && (pipeline == "" || slices.Contains(c.members, pipeline)) {
			c.count++
			c.queue = append(c.queue, &item{number: c.count, msg: msg.Copy(), settle: settle})
			t.changed.Broadcast()
		}
	}
}

// consumer returns the consumer that has a pipeline as a member, and creates it if necessary. The
// caller has the lock.
func (t *topics) consumer(pipeline, topic, stream string) *consumer {
	stream = cmp.Or(stream, "\x00"+pipeline+"\x00"+topic)
	i := slices.IndexFunc(t.consumers, func(c *consumer) bool { return c.stream == stream })
	if i < 0 {
		i = len(t.consumers)
		t.consumers = append(t.consumers, &consumer{stream: stream})
	}
	c := t.consumers[i]
	if !slices.Contains(c.topics, topic) {
		c.topics = append(c.topics, topic)
	}
	if !slices.Contains(c.members, pipeline) {
		c.members = append(c.members, pipeline)
	}
	return c
}

// subscriber is the subscriber of one pipeline.
type subscriber struct {
	*topics
	pipeline string
	void     context.Context // the context of deliveries; Close ends it
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup
}

func (s *subscriber) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	traits, err := s.Topic(topic, transports.Consume)
	if err != nil {
		return nil, fmt.Errorf("subscribing to %q: %w", topic, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics.closed || s.void.Err() != nil {
		return nil, fmt.Errorf("subscribing to %q: %w", topic, transports.ErrClosed)
	}
	sub := &subscription{subscriber: s, consumer: s.consumer(s.pipeline, topic, traits.Stream), window: max(traits.Window, 1)}
	done := make(chan struct{})
	s.running.Go(func() {
		defer close(done)
		sub.run(ctx, take)
	})
	return done, nil
}

func (s *subscriber) Close() error {
	s.mu.Lock()
	s.cancel(transports.ErrVoid)
	s.changed.Broadcast()
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// subscription delivers the messages of a consumer.
type subscription struct {
	*subscriber
	consumer *consumer
	window   int
	out      []*item // unsettled messages
}

// run delivers messages until ctx ends and all are settled, or until the subscriber is closed. It
// puts unsettled messages back into the queue.
func (s *subscription) run(ctx context.Context, take func(*transports.Delivery)) {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})()
	for d := s.next(ctx); d != nil; d = s.next(ctx) {
		take(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.out {
		s.putBack(it)
	}
	s.out = nil
}

// next waits for the consumer's first message. It returns nil at the end.
func (s *subscription) next(ctx context.Context) *transports.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.void.Err() == nil && (ctx.Err() == nil || len(s.out) > 0) {
		if q := s.consumer.queue; ctx.Err() == nil && len(q) > 0 && len(s.out) < s.window {
			s.consumer.queue = q[1:]
			s.out = append(s.out, q[0])
			return s.delivery(q[0])
		}
		s.changed.Wait()
	}
	return nil
}

func (s *subscription) delivery(it *item) *transports.Delivery {
	d := &transports.Delivery{UUID: it.msg.UUID, Payload: it.msg.Payload, Metadata: maps.Clone(it.msg.Metadata), Context: s.void}
	if it.again {
		d.Metadata[transports.Redelivered] = "true"
	}
	settled := false
	d.Settle = func(o *transports.Outcome) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if settled || s.void.Err() != nil {
			return
		}
		settled = true
		s.out = slices.DeleteFunc(s.out, func(other *item) bool { return other == it })
		if o == nil {
			s.putBack(it)
		} else if it.settle != nil {
			it.settle(o)
		}
		s.changed.Broadcast()
	}
	return d
}

// putBack puts a message back into the queue, to be redelivered. The caller has the lock.
func (s *subscription) putBack(it *item) {
	it.again = true
	i, _ := slices.BinarySearchFunc(s.consumer.queue, it.number, func(o *item, n int) int { return cmp.Compare(o.number, n) })
	s.consumer.queue = slices.Insert(s.consumer.queue, i, it)
	s.changed.Broadcast()
}
