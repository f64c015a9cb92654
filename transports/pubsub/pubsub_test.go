package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/pubsub"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// channels is a transport over Watermill's gochannel, as an author would write it. One gochannel
// is the Publisher and the Subscriber, and each of its subscriptions gets all messages.
type channels struct{ *gochannel.GoChannel }

func (c *channels) Topic(name string, use transports.Use) (transports.Topic, error) {
	return pubsub.Topic(name, use, transports.Topic{})
}

func (c *channels) New(env transports.Env) (transports.Transport, error) {
	c.GoChannel = gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	return pubsub.New(env, pubsub.PubSub{
		Subscriber: func(string, int, watermill.LoggerAdapter) (message.Subscriber, error) {
			return shared{c.GoChannel}, nil
		},
		Publisher: func(watermill.LoggerAdapter) (message.Publisher, error) { return shared{c.GoChannel}, nil },
		Tap:       func(watermill.LoggerAdapter) (message.Subscriber, error) { return shared{c.GoChannel}, nil },
		Close:     c.Close,
	})
}

// shared is a part that isn't closed before the whole.
type shared struct{ *gochannel.GoChannel }

func (shared) Close() error { return nil }

// The suite looks for leaked goroutines, so no other test may run at the same time.
func TestConformance(t *testing.T) {
	var c *channels
	transporttest.Run(t, transporttest.Harness{
		Topic:      "topic",
		Unordered:  true, // gochannel starts a goroutine for each message
		Redelivers: true,
		Config: func(*testing.T) transports.Config {
			c = &channels{}
			return c
		},
		Put: func(t *testing.T, _ transports.Transport, payloads ...string) {
			for i, payload := range payloads {
				if err := c.Publish("topic", message.NewMessage(fmt.Sprint(payload, i), []byte(payload))); err != nil {
					t.Error(err)
				}
			}
		},
	})
}

// fake is a Pub/Sub that the test controls.
type fake struct {
	mu sync.Mutex
	// fails is the error of opening and subscribing.
	fails error
	// publish is called by Publish.
	publish func([]*message.Message) error
	// subscriptions has the open subscriptions, in the order in which they were opened.
	subscriptions []*fakeSubscription
}

type fakeSubscription struct {
	out    chan *message.Message
	ctx    context.Context
	name   string
	closed sync.Once
}

func (s *fakeSubscription) lose() { s.closed.Do(func() { close(s.out) }) }

func (f *fake) failing(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = err
}

func (f *fake) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fails
}

// part is a stock Subscriber and Publisher of the fake.
type part struct {
	*fake
	name string
}

func (p part) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	if err := p.failure(); err != nil {
		return nil, err
	}
	s := &fakeSubscription{out: make(chan *message.Message), ctx: ctx, name: p.name}
	context.AfterFunc(ctx, s.lose)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subscriptions = append(p.subscriptions, s)
	return s.out, nil
}

func (p part) Publish(_ string, msgs ...*message.Message) error { return p.publish(msgs) }

func (p part) Close() error { return nil }

// rig is a started transport over a fake.
type rig struct {
	*testing.T
	*fake
	tr  transports.Transport
	log *syncBuffer
}

func start(t *testing.T, n int) *rig {
	t.Helper()
	r := &rig{T: t, fake: &fake{publish: func([]*message.Message) error { return nil }}, log: &syncBuffer{}}
	open := func(name string) (part, error) { return part{r.fake, name}, r.failure() }
	tr, err := pubsub.New(transports.Env{
		Name: "test", Logger: slog.New(slog.NewTextHandler(r.log, nil)), Now: time.Now, Registerer: prometheus.NewRegistry(),
	}, pubsub.PubSub{
		Subscriptions: n,
		Subscriber: func(pipeline string, n int, _ watermill.LoggerAdapter) (message.Subscriber, error) {
			return open(fmt.Sprint(pipeline, " ", n))
		},
		Publisher:  func(watermill.LoggerAdapter) (message.Publisher, error) { return open("out") },
		Unsendable: func(err error) bool { return errors.Is(err, errTooLarge) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.tr = tr
	t.Cleanup(func() {
		if err := tr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := tr.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// subscription waits for the nth subscription that was opened.
func (r *rig) subscription(n int) *fakeSubscription {
	r.Helper()
	var s *fakeSubscription
	r.until(fmt.Sprintf("subscription %d is open", n), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.subscriptions) > n {
			s = r.subscriptions[n]
		}
		return s != nil
	})
	return s
}

func (r *rig) until(what string, so func() bool) {
	r.Helper()
	await.That(r, what, func() (any, bool) { return fmt.Sprint(r.tr.Health(), "\n", r.log.String()), so() })
}

// subscribe returns the deliveries of a pipeline, and whether it is present.
func (r *rig) subscribe(ctx context.Context) (taken <-chan *transports.Delivery, done <-chan struct{}, present *atomic.Bool) {
	r.Helper()
	present = &atomic.Bool{}
	present.Store(true)
	s, err := r.tr.Subscriber(transports.Consumer{Pipeline: "p", Present: present.Store})
	if err != nil {
		r.Fatal(err)
	}
	out := make(chan *transports.Delivery, 100)
	done, err = s.Subscribe(ctx, "t", func(d *transports.Delivery) { out <- d })
	if err != nil {
		r.Fatal(err)
	}
	return out, done, present
}

// sick returns the errors in the health.
func (r *rig) sick() string {
	for _, h := range r.tr.Health() {
		if h.Err != nil {
			return h.Part + ": " + h.Err.Error()
		}
	}
	return ""
}

var (
	errAway     = errors.New("the broker is away")
	errTooLarge = errors.New("too large")
)

func TestABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.failing(errAway)
	taken, _, present := r.subscribe(t.Context())
	r.until("the health says it", func() bool { return strings.HasPrefix(r.sick(), "subscription 1 of p: opening: the broker is away") })
	if present.Load() {
		t.Error("present, and there is no subscription")
	}
	r.failing(nil)
	first := r.subscription(0)
	r.until("it is present", present.Load)
	r.until("it is healthy", func() bool { return r.sick() == "" })

	// A delivery of a lost subscription is void. The message is redelivered, and marked as such.
	first.out <- message.NewMessage("1", []byte("one"))
	d := <-taken
	first.lose()
	<-d.Context.Done()
	if cause := context.Cause(d.Context); !errors.Is(cause, transports.ErrVoid) {
		t.Errorf("ended by %v", cause)
	}
	d.Settle(&transports.Outcome{})
	second := r.subscription(1)
	r.until("it is present again", present.Load)
	msg := message.NewMessage("1", []byte("one"))
	second.out <- msg
	d = <-taken
	if d.Metadata[transports.Redelivered] != "true" {
		t.Errorf("metadata %v", d.Metadata)
	}
	d.Settle(&transports.Outcome{})
	<-msg.Acked()
	second.out <- message.NewMessage("1", []byte("one"))
	if d = <-taken; d.Metadata[transports.Redelivered] != "" {
		t.Errorf("an acked message counts as handed back: %v", d.Metadata)
	}
	d.Settle(&transports.Outcome{})
	if n := strings.Count(r.log.String(), "broker is away"); n != 1 {
		t.Errorf("the outage is logged %d times:\n%s", n, r.log)
	}
}

func TestOneMessageInFlightForEachSubscription(t *testing.T) {
	t.Parallel()
	const n = 3
	r := start(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	taken, done, _ := r.subscribe(ctx)
	var open []*fakeSubscription
	names := map[string]bool{}
	for i := range n {
		open = append(open, r.subscription(i))
		names[open[i].name] = true
	}
	if got := slices.Sorted(maps.Keys(names)); !slices.Equal(got, []string{"p 0", "p 1", "p 2"}) {
		t.Errorf("the subscribers are %q", got)
	}
	for i, s := range open {
		s.out <- message.NewMessage(fmt.Sprint(i), nil)
		s.out <- message.NewMessage(fmt.Sprint(i, " next"), nil) // it is read ahead
	}
	var held []*transports.Delivery
	for range n {
		held = append(held, <-taken)
	}
	select {
	case d := <-taken:
		t.Errorf("%s is in flight too", d.UUID)
	case <-time.After(50 * time.Millisecond):
	}
	held[0].Settle(&transports.Outcome{})
	if next := <-taken; next.UUID != held[0].UUID+" next" {
		t.Errorf("%s after %s", next.UUID, held[0].UUID)
	} else {
		held[0] = next
	}
	cancel()
	for _, d := range held {
		select {
		case <-done:
			t.Error("done, and a delivery is unsettled")
		case <-time.After(10 * time.Millisecond):
		}
		d.Settle(&transports.Outcome{})
	}
	<-done
	select {
	case d := <-taken:
		t.Errorf("%s is handed out after the end", d.UUID)
	default:
	}
}

// The Pub/Sub can send an ack only while its subscription exists.
func TestASubscriptionEndsAfterItsLastAck(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	taken, done, _ := r.subscribe(ctx)
	s := r.subscription(0)
	msg := message.NewMessage("1", nil)
	life, acked := context.WithCancel(context.Background())
	msg.SetContext(life)
	s.out <- msg
	d := <-taken
	cancel()
	d.Settle(&transports.Outcome{})
	<-msg.Acked()
	select {
	case <-s.ctx.Done():
		t.Error("the subscription ended before the ack was sent")
	case <-done:
		t.Error("done before the ack was sent")
	case <-time.After(50 * time.Millisecond):
	}
	acked()
	<-done
	<-s.ctx.Done()
}

func TestAMessageThatIsHandedBackIsNacked(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	taken, _, _ := r.subscribe(t.Context())
	s := r.subscription(0)
	msg := message.NewMessage("1", nil)
	s.out <- msg
	d := <-taken
	d.Settle(nil)
	<-msg.Nacked()
	d.Settle(&transports.Outcome{})
	select {
	case <-msg.Acked():
		t.Error("acked after it was nacked")
	default:
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	var sent *message.Message
	r.publish = func(msgs []*message.Message) error {
		sent = msgs[0]
		return nil
	}
	out, err := r.tr.Publisher(transports.Producer{Pipeline: "p", Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	msg := message.NewMessage("uuid", []byte("body"))
	msg.Metadata = message.Metadata{
		transports.MessageID: "id", transports.Type: "test", transports.TraceParent: "trace", "header.site": "a", "own": "b",
		"header.type": "a header", "header.header.x": "nested", "header.redelivered": "odd",
		transports.Redelivered: "true", "source.exchange": "e", "header.later": "old", "later": "new",
	}
	if err := out.Publish("t", msg); err != nil {
		t.Fatal(err)
	}
	want := message.Metadata{
		transports.MessageID: "id", transports.Type: "test", "traceparent": "trace", "site": "a", "own": "b",
		"header.type": "a header", "header.header.x": "nested", "header.redelivered": "odd", "later": "new",
	}
	if sent.UUID != "id" || !maps.Equal(sent.Metadata, want) {
		t.Errorf("sent %s %v\nwant %v", sent.UUID, sent.Metadata, want)
	}

	// The message comes back unchanged, except the metadata about its delivery.
	sent.Metadata["source.exchange"], sent.Metadata[transports.Redelivered] = "forged", "true"
	taken, _, _ := r.subscribe(t.Context())
	r.subscription(0).out <- sent
	d := <-taken
	want = message.Metadata{
		transports.MessageID: "id", transports.Type: "test", transports.TraceParent: "trace", "header.site": "a", "header.own": "b",
		"header.type": "a header", "header.header.x": "nested", "header.redelivered": "odd", "header.later": "new",
	}
	if !maps.Equal(d.Metadata, want) || string(d.Payload) != "body" {
		t.Errorf("came %q %v\nwant %v", d.Payload, d.Metadata, want)
	}
}

func TestPublishErrors(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	out, err := r.tr.Publisher(transports.Producer{Pipeline: "p", Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	try := func(does func([]*message.Message) error) error {
		r.publish = does
		return out.Publish("t", message.NewMessage("1", nil))
	}
	if err := try(func([]*message.Message) error { return errAway }); !errors.Is(err, errAway) || errors.Is(err, transports.ErrUnsendable) {
		t.Errorf("away: %v", err)
	}
	if err := try(func([]*message.Message) error { return fmt.Errorf("message 1: %w", errTooLarge) }); !errors.Is(err, transports.ErrUnsendable) {
		t.Errorf("too large: %v", err)
	}
	if err := try(func([]*message.Message) error { panic("out of range") }); err == nil || !strings.Contains(err.Error(), "out of range") {
		t.Errorf("a panic: %v", err)
	}

	// Calls that hang are abandoned one by one, until no more calls are begun.
	hang := make(chan struct{})
	r.publish = func([]*message.Message) error {
		<-hang
		return nil
	}
	publish := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		msg := message.NewMessage("1", nil)
		msg.SetContext(ctx)
		time.AfterFunc(time.Millisecond, cancel)
		return out.Publish("t", msg)
	}
	var refused error
	r.until("no more calls are begun", func() bool {
		refused = publish()
		return !errors.Is(refused, transports.ErrUndecided) && !errors.Is(refused, context.Canceled)
	})
	if !strings.Contains(refused.Error(), "16 earlier calls of Publish haven't returned") {
		t.Errorf("with 16 calls that hang: %v", refused)
	}
	close(hang)
	r.until("it publishes again", func() bool { return publish() == nil })
}

func TestAPublisherThatCantBeOpened(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	r.failing(errAway)
	acceptor := r.tr.(transports.Acceptor)
	if err := acceptor.Accepts("t"); err != nil {
		t.Errorf("before anybody publishes: %v", err)
	}
	out, err := r.tr.Publisher(transports.Producer{Pipeline: "p", Topic: "t"})
	if err != nil {
		t.Fatal(err)
	}
	r.until("it accepts nothing", func() bool { return errors.Is(acceptor.Accepts("t"), errAway) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	msg := message.NewMessage("1", nil)
	msg.SetContext(ctx)
	if err := out.Publish("t", msg); !errors.Is(err, context.Canceled) {
		t.Errorf("without a publisher: %v", err)
	}
	r.failing(nil)
	r.until("it accepts", func() bool { return acceptor.Accepts("t") == nil })
	if err := out.Publish("t", message.NewMessage("2", nil)); err != nil {
		t.Error(err)
	}
}

func TestOneSideOnly(t *testing.T) {
	t.Parallel()
	tr, err := pubsub.New(transports.Env{Logger: slog.New(slog.DiscardHandler)}, pubsub.PubSub{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Subscriber(transports.Consumer{Pipeline: "p"}); err == nil {
		t.Error("a subscriber of nothing")
	}
	if _, err := tr.Publisher(transports.Producer{Pipeline: "p"}); err == nil {
		t.Error("a publisher of nothing")
	}
	if _, ok := tr.(transports.Tapper); ok {
		t.Error("it can be tapped")
	}
}

func TestTopic(t *testing.T) {
	t.Parallel()
	if _, err := pubsub.Topic("", transports.Consume, transports.Topic{}); err == nil {
		t.Error("a topic without a name")
	}
	if _, err := pubsub.Topic("", transports.Return, transports.Topic{}); err == nil {
		t.Error("messages can be put back")
	}
	topic, err := pubsub.Topic("t", transports.Consume, transports.Topic{Broker: true})
	if err != nil || topic.Window != 1 || !topic.Broker {
		t.Errorf("%+v, %v", topic, err)
	}
}

// An ack just before the end is sent, too.
func TestAnAckBeforeTheEndIsSent(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	taken, done, _ := r.subscribe(ctx)
	s := r.subscription(0)
	msg := message.NewMessage("1", nil)
	life, acked := context.WithCancel(context.Background())
	msg.SetContext(life)
	s.out <- msg
	(<-taken).Settle(&transports.Outcome{})
	<-msg.Acked()
	cancel()
	select {
	case <-s.ctx.Done():
		t.Error("the subscription ended before the ack was sent")
	case <-done:
		t.Error("done before the ack was sent")
	case <-time.After(50 * time.Millisecond):
	}
	acked()
	<-done
}

// The unsettled messages of a closed subscriber are redelivered to the pipeline's next one.
func TestTheNextSubscriberKnowsWhatWasHandedOut(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	take := func() (*transports.Delivery, transports.Subscriber, *message.Message) {
		s, err := r.tr.Subscriber(transports.Consumer{Pipeline: "p"})
		if err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		n := len(r.subscriptions)
		r.mu.Unlock()
		taken := make(chan *transports.Delivery, 1)
		if _, err := s.Subscribe(t.Context(), "t", func(d *transports.Delivery) { taken <- d }); err != nil {
			t.Fatal(err)
		}
		msg := message.NewMessage("1", nil)
		r.subscription(n).out <- msg
		return <-taken, s, msg
	}
	first, s, _ := take()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-first.Context.Done()
	second, _, _ := take()
	if first.Metadata[transports.Redelivered] != "" || second.Metadata[transports.Redelivered] != "true" {
		t.Errorf("redelivered is %q, then %q", first.Metadata[transports.Redelivered], second.Metadata[transports.Redelivered])
	}
}

// At the end, the message that was read ahead is nacked, and so is one that a Pub/Sub must not
// send.
func TestWhatWasReadAheadIsNacked(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	taken, done, _ := r.subscribe(ctx)
	s := r.subscription(0)
	ahead := message.NewMessage("2", nil)
	s.out <- message.NewMessage("1", nil)
	d := <-taken
	s.out <- ahead
	cancel()
	d.Settle(nil)
	<-done
	select {
	case <-ahead.Nacked():
	default:
		t.Error("the message that was read ahead isn't nacked")
	}
}

// A Pub/Sub that returns nil or delivers a nil message fails, and affects nothing else.
func TestNothingFromThePubSub(t *testing.T) {
	t.Parallel()
	t.Run("message", func(t *testing.T) {
		t.Parallel()
		r := start(t, 1)
		r.subscribe(t.Context())
		r.subscription(0).out <- nil
		r.subscription(1)
	})
	for name, ps := range map[string]pubsub.PubSub{
		"Subscriber": {Subscriber: func(string, int, watermill.LoggerAdapter) (message.Subscriber, error) { return nil, nil }},
		"Publisher":  {Publisher: func(watermill.LoggerAdapter) (message.Publisher, error) { return nil, nil }},
		"panic":      {Publisher: func(watermill.LoggerAdapter) (message.Publisher, error) { panic("no panic") }},
		"channel":    {Subscriber: func(string, int, watermill.LoggerAdapter) (message.Subscriber, error) { return mute{}, nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr, err := pubsub.New(transports.Env{Logger: slog.New(slog.DiscardHandler)}, ps)
			if err != nil {
				t.Fatal(err)
			}
			if err := tr.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if ps.Subscriber != nil {
				s, err := tr.Subscriber(transports.Consumer{Pipeline: "p"})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Subscribe(t.Context(), "t", func(*transports.Delivery) { t.Error("a delivery") }); err != nil {
					t.Fatal(err)
				}
			} else if _, err := tr.Publisher(transports.Producer{Topic: "t"}); err != nil {
				t.Fatal(err)
			}
			await.That(t, "the health says it", func() (any, bool) {
				h := tr.Health()
				return h, slices.ContainsFunc(h, func(h transports.Health) bool {
					return h.Err != nil && (strings.Contains(h.Err.Error(), "no "+name))
				})
			})
			if err := tr.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// mute is a Subscriber without a channel.
type mute struct{}

func (mute) Subscribe(context.Context, string) (<-chan *message.Message, error) { return nil, nil }

func (mute) Close() error { return nil }

// A Publisher that doesn't work any more is replaced.
func TestABrokenPublisherIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made, works := 0, false
		tr, err := pubsub.New(transports.Env{Logger: slog.New(slog.DiscardHandler)}, pubsub.PubSub{
			Publisher: func(watermill.LoggerAdapter) (message.Publisher, error) {
				made++
				works = made == 2
				return part{fake: &fake{publish: func([]*message.Message) error {
					if !works {
						return errAway
					}
					return nil
				}}}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		out, err := tr.Publisher(transports.Producer{Pipeline: "p", Topic: "t"})
		if err != nil {
			t.Fatal(err)
		}
		acceptor, refused := tr.(transports.Acceptor), 0
		for range 60 {
			if acceptor.Accepts("t") != nil {
				refused++
			}
			_ = out.Publish("t", message.NewMessage("1", nil))
			time.Sleep(time.Second)
		}
		if made != 2 || acceptor.Accepts("t") != nil || refused < 20 || refused > 40 {
			t.Errorf("made %d, refused %d times, accepts: %v", made, refused, acceptor.Accepts("t"))
		}
		if err := tr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

// If a Pub/Sub never sends an ack, the transport makes a new subscription: the connection may be
// lost.
func TestAnAckThatIsNeverSent(t *testing.T) {
	t.Parallel()
	r := start(t, 1)
	taken, _, _ := r.subscribe(t.Context())
	msg := message.NewMessage("1", nil)
	life, end := context.WithCancel(context.Background())
	defer end()
	msg.SetContext(life)
	r.subscription(0).out <- msg
	(<-taken).Settle(&transports.Outcome{})
	again := message.NewMessage("1", nil)
	r.subscription(1).out <- again
	if d := <-taken; d.Metadata[transports.Redelivered] != "true" {
		t.Errorf("metadata %v", d.Metadata)
	}
}
