package scenario

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// topics is the fake of a transport that has nothing but topics, such as one to a broker. A topic has the traits that the transport's own
// configuration says it has: its window, and which pipelines share its messages. What is published to a topic comes to those who consume that
// topic, and is recorded.
type topics struct {
	transports.Config // describes topics
	name              string
	record            *record

	mu          sync.Mutex
	consumers   []*consumer
	subscribers []*subscriber
	closed      bool
}

// consumer is who gets each message of a topic: a pipeline, or those that share a stream.
type consumer struct {
	stream  string
	topics  []string
	members []string // the pipelines
	queue   []*item
	count   int // of all that it got
	// more is signalled when the queue isn't empty.
	more chan struct{}
}

// item is a message that isn't settled.
type item struct {
	number int // of its consumer's
	msg    *message.Message
	again  bool
}

var _ transports.Transport = (*topics)(nil)

// New implements transports.Config: the fake is its own configuration.
func (t *topics) New(transports.Env) (transports.Transport, error) { return t, nil }

func (t *topics) Subscriber(c transports.Consumer) (message.Subscriber, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &subscriber{topics: t, pipeline: c.Pipeline, closed: make(chan struct{})}
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
		_ = s.Close() // it has no error
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
		p.put(topic, "", msg)
	}
	return nil
}

func (p *producer) Close() error {
	p.over.Store(true)
	return nil
}

// put gives a copy of msg to the consumers of a topic, or of these to that which one pipeline is a member of.
func (t *topics) put(topic, pipeline string, msg *message.Message) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.consumers {
		if slices.Contains(c.topics, topic) && (pipeline == "" || slices.Contains(c.members, pipeline)) {
			copied := msg.Copy()
			if reply := transports.ReplyFrom(msg.Context()); reply != nil {
				copied.SetContext(transports.WithReply(context.Background(), reply))
			}
			c.count++
			c.queue = append(c.queue, &item{number: c.count, msg: copied})
			c.signal()
		}
	}
}

// consumer returns the one that a pipeline is or is a member of. The lock is held.
func (t *topics) consumer(pipeline, topic, stream string) *consumer {
	stream = cmp.Or(stream, "\x00"+pipeline+"\x00"+topic)
	i := slices.IndexFunc(t.consumers, func(c *consumer) bool { return c.stream == stream })
	if i < 0 {
		i = len(t.consumers)
		t.consumers = append(t.consumers, &consumer{stream: stream, more: make(chan struct{}, 1)})
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

func (c *consumer) signal() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// subscriber is a pipeline's.
type subscriber struct {
	*topics
	pipeline string
	shut     sync.Once
	closed   chan struct{}
	running  sync.WaitGroup
}

func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	traits, err := s.Topic(topic, transports.Consume)
	if err != nil {
		return nil, fmt.Errorf("subscribing to %q: %w", topic, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.topics.closed || s.ended() {
		return nil, fmt.Errorf("subscribing to %q: %w", topic, transports.ErrClosed)
	}
	sub := &subscription{
		subscriber: s, consumer: s.consumer(s.pipeline, topic, traits.Stream),
		out: make(chan *message.Message), window: make(chan struct{}, max(traits.Window, 1)),
	}
	s.running.Go(func() { sub.run(ctx) })
	return sub.out, nil
}

func (s *subscriber) Close() error {
	s.shut.Do(func() { close(s.closed) })
	s.running.Wait()
	return nil
}

func (s *subscriber) ended() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// subscription hands a consumer's messages out.
type subscription struct {
	*subscriber
	consumer  *consumer
	out       chan *message.Message
	window    chan struct{} // holds a token for each unsettled message
	unsettled sync.WaitGroup
}

func (s *subscription) run(ctx context.Context) {
	defer close(s.out)
	defer s.unsettled.Wait()
	for {
		select {
		case s.window <- struct{}{}:
		case <-ctx.Done():
			return
		case <-s.closed:
			return
		}
		it := s.next(ctx)
		if it == nil {
			return
		}
		void, cancel := context.WithCancelCause(it.msg.Context())
		msg := it.msg.Copy()
		msg.SetContext(void)
		if it.again {
			msg.Metadata[transports.Redelivered] = "true"
		}
		select {
		case s.out <- msg:
			s.unsettled.Go(func() { s.await(it, msg, cancel) })
		case <-ctx.Done():
			s.putBack(it)
			cancel(nil)
			return
		case <-s.closed:
			s.putBack(it)
			cancel(nil)
			return
		}
	}
}

// next returns the consumer's first message, or nil at the end.
func (s *subscription) next(ctx context.Context) *item {
	for {
		s.mu.Lock()
		var it *item
		if q := s.consumer.queue; len(q) > 0 {
			it, s.consumer.queue = q[0], q[1:]
			if len(q) > 1 {
				s.consumer.signal()
			}
		}
		s.mu.Unlock()
		if it != nil {
			return it
		}
		select {
		case <-s.consumer.more:
		case <-ctx.Done():
			return nil
		case <-s.closed:
			return nil
		}
	}
}

// await settles one message; one that is nacked comes again.
func (s *subscription) await(it *item, msg *message.Message, cancel context.CancelCauseFunc) {
	defer cancel(nil)
	select {
	case <-msg.Acked():
	case <-msg.Nacked():
		it.again = true
		s.putBack(it)
	case <-s.closed:
		// A settlement that came first counts.
		select {
		case <-msg.Acked():
		default:
			it.again = true
			s.putBack(it)
		}
		cancel(transports.ErrVoid)
	}
	<-s.window
}

func (s *subscription) putBack(it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(s.consumer.queue, it.number, func(o *item, n int) int { return cmp.Compare(o.number, n) })
	s.consumer.queue = slices.Insert(s.consumer.queue, i, it)
	s.consumer.signal()
}
