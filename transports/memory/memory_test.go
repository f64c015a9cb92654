package memory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

func TestMain(m *testing.M) { await.Main(m) }

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Config: func(*testing.T) transports.Config { return &Config{Buffer: 40, Window: 20} },
		Topic:  "orders",
		Put: func(t *testing.T, tr transports.Transport, payloads ...string) {
			t.Helper()
			p := publisherOf(t, tr)
			for _, payload := range payloads {
				if err := p.Publish("orders", message.NewMessage("", []byte(payload))); err != nil {
					t.Fatalf("publishing: %v", err)
				}
			}
		},
		Redelivers: true,
		Returns:    true,
	})
}

func build(t *testing.T, c Config) *memory {
	t.Helper()
	tr, err := c.New(transports.Env{
		Name: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return tr.(*memory)
}

func publisherOf(t testing.TB, tr transports.Transport) message.Publisher {
	t.Helper()
	p, err := tr.Publisher(transports.Producer{Pipeline: "producer"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func subscribe(ctx context.Context, t testing.TB, tr transports.Transport, pipeline, topic string) (message.Subscriber, <-chan *message.Message) {
	t.Helper()
	own, err := tr.Subscriber(transports.Consumer{Pipeline: pipeline})
	if err != nil {
		t.Fatal(err)
	}
	s := transporttest.Stock(own)
	out, err := s.Subscribe(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	return s, out
}

func messageOf(ctx context.Context, payload string) *message.Message {
	return message.NewMessageWithContext(ctx, "", []byte(payload))
}

func TestFullBufferBlocksPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := build(t, Config{Buffer: 2, Window: 1})
		p := publisherOf(t, m)
		_, slow := subscribe(t.Context(), t, m, "slow", "x")
		_, quick := subscribe(t.Context(), t, m, "quick", "x")
		if err := p.Publish("x", messageOf(t.Context(), "1"), messageOf(t.Context(), "2")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			(<-quick).Ack()
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := p.Publish("x", messageOf(ctx, "never"))
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "pipeline slow is full with 2 messages") {
			t.Errorf("Publish to a full buffer: %v", err)
		}

		published := make(chan error)
		go func() { published <- p.Publish("x", messageOf(t.Context(), "3")) }()
		first := <-slow
		synctest.Wait()
		select {
		case err := <-published:
			t.Fatalf("Publish returned %v while the buffer was full", err)
		default:
		}
		first.Ack()
		if err := <-published; err != nil {
			t.Error(err)
		}
		for _, want := range []string{"2", "3"} {
			msg := <-slow
			if string(msg.Payload) != want {
				t.Errorf("received %s, want %s: what wasn't confirmed reached nobody", msg.Payload, want)
			}
			msg.Ack()
		}
	})
}

func TestBlockedPublishEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*memory, message.Subscriber, message.Publisher)
		want error
	}{
		{"with the consumer", func(_ *memory, s message.Subscriber, _ message.Publisher) { _ = s.Close() }, nil},
		{"with the publisher", func(_ *memory, _ message.Subscriber, p message.Publisher) { _ = p.Close() }, transports.ErrClosed},
		{"with the transport", func(m *memory, _ message.Subscriber, _ message.Publisher) { _ = m.Close(context.Background()) }, transports.ErrClosed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := build(t, Config{Buffer: 1, Window: 1})
				p := publisherOf(t, m)
				s, _ := subscribe(t.Context(), t, m, "stuck", "x")
				if err := p.Publish("x", messageOf(t.Context(), "1")); err != nil {
					t.Fatal(err)
				}
				published := make(chan error, 2)
				for range 2 { // one waits for room, one for its turn
					go func() { published <- p.Publish("x", messageOf(t.Context(), "2")) }()
				}
				synctest.Wait()
				c.end(m, s, p)
				for range 2 {
					if err := <-published; !errors.Is(err, c.want) {
						t.Errorf("Publish: %v, want %v", err, c.want)
					}
				}
			})
		})
	}
}

func TestWithoutConsumer(t *testing.T) {
	m := build(t, defaults)
	p := publisherOf(t, m)
	for i := range maxKept + 5 {
		if err := p.Publish("x", messageOf(t.Context(), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	tapped, err := m.Tap(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxKept {
		if msg := <-tapped; string(msg.Payload) != fmt.Sprint(i+5) {
			t.Fatalf("tapped %s as number %d", msg.Payload, i)
		}
	}

	_, out := subscribe(t.Context(), t, m, "late", "x")
	if err := p.Publish("x", messageOf(t.Context(), "new")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []<-chan *message.Message{tapped, out} {
		if msg := <-c; string(msg.Payload) != "new" {
			t.Errorf("received %s, want what was published after Subscribe", msg.Payload)
		}
	}
	if m.topics["x"].kept != nil {
		t.Error("messages are kept although there is a consumer")
	}
}

func TestVoidAtClose(t *testing.T) {
	m := build(t, defaults)
	s, out := subscribe(t.Context(), t, m, "a", "x")
	if err := publisherOf(t, m).Publish("x", messageOf(t.Context(), "1")); err != nil {
		t.Fatal(err)
	}
	msg := <-out
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if cause := context.Cause(msg.Context()); !errors.Is(cause, transports.ErrVoid) {
		t.Errorf("the message's context ended with %v, want ErrVoid", cause)
	}
}

func TestOneSubscriptionAtATime(t *testing.T) {
	m := build(t, defaults)
	s, _ := subscribe(t.Context(), t, m, "a", "x")
	if _, err := s.Subscribe(t.Context(), "x"); err == nil {
		t.Error("a pipeline has two subscriptions of one topic")
	}
	if _, err := s.Subscribe(t.Context(), "y"); err != nil {
		t.Errorf("subscribing to another topic: %v", err)
	}
}

func TestDrained(t *testing.T) {
	m := build(t, defaults)
	_, out := subscribe(t.Context(), t, m, "a", "x")
	m.Drain("x")
	if _, ok := <-out; ok {
		t.Error("a message came out of nothing")
	}
	if err := publisherOf(t, m).Publish("x", messageOf(t.Context(), "1")); !errors.Is(err, transports.ErrClosed) {
		t.Errorf("Publish to a drained topic: %v, want ErrClosed", err)
	}
}

func TestDrainWaitsForNacked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := build(t, defaults)
		_, out := subscribe(t.Context(), t, m, "a", "x")
		if err := publisherOf(t, m).Publish("x", messageOf(t.Context(), "1")); err != nil {
			t.Fatal(err)
		}
		msg := <-out
		m.Drain("x")
		synctest.Wait()
		msg.Nack()
		msg = <-out
		msg.Ack()
		if _, ok := <-out; ok {
			t.Error("an acked message came again")
		}
	})
}

// TestRedeliveredToOne checks that a message that one consumer nacks is redelivered only to that
// consumer, whatever metadata the publisher set.
func TestRedeliveredToOne(t *testing.T) {
	m := build(t, defaults)
	take := func(pipeline string) <-chan *transports.Delivery {
		t.Helper()
		s, err := m.Subscriber(transports.Consumer{Pipeline: pipeline})
		if err != nil {
			t.Fatal(err)
		}
		out := make(chan *transports.Delivery, 1)
		if _, err := s.Subscribe(t.Context(), "x", func(d *transports.Delivery) { out <- d }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	a, b := take("a"), take("b")
	sent := messageOf(t.Context(), "1")
	sent.Metadata["colour"], sent.Metadata[transports.Redelivered] = "blue", "true"
	if err := publisherOf(t, m).Publish("x", sent); err != nil {
		t.Fatal(err)
	}
	first := <-a
	first.Settle(nil)
	second := <-a
	for _, c := range []struct {
		who   string
		d     *transports.Delivery
		again string
	}{{"the first of a", first, ""}, {"the second of a", second, "true"}, {"that of b", <-b, ""}} {
		if got := c.d.Metadata; got["colour"] != "blue" || got[transports.Redelivered] != c.again {
			t.Errorf("%s has the metadata %v, want redelivered %q", c.who, got, c.again)
		}
	}
}

func TestMetrics(t *testing.T) {
	m := build(t, defaults)
	subscribe(t.Context(), t, m, "a", "x")
	if err := publisherOf(t, m).Publish("x", messageOf(t.Context(), "1"), messageOf(t.Context(), "2")); err != nil {
		t.Fatal(err)
	}
	want := `# HELP pentrough_memory_messages Messages in a consumer's buffer, waiting and unsettled.
# TYPE pentrough_memory_messages gauge
pentrough_memory_messages{pipeline="a",topic="x"} 2
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// Messages that wait take the budget at most, and one waits in any case.
func TestWaitingMessagesAreBoundedInBytes(t *testing.T) {
	m := build(t, defaults)
	m.env.Memory = transports.Memory{Waiting: transports.NewBudget(2500), InFlight: transports.NewBudget(100)}
	m.env.Memory.InFlight.Add(100) // by others
	_, out := subscribe(t.Context(), t, m, "a", "x")
	p := publisherOf(t, m)
	payload := strings.Repeat("a", 1000)
	for range 4 { // one is handed out, and three fill the budget
		if err := p.Publish("x", messageOf(t.Context(), payload)); err != nil {
			t.Fatal(err)
		}
		if m.env.Memory.Waiting.Used() == 1000 {
			await.That(t, "the first is handed out", func() (any, bool) {
				m.mu.Lock()
				defer m.mu.Unlock()
				return nil, m.topics["x"].consumers["a"].unsettled == 1
			})
		}
	}
	fifth := make(chan error, 1)
	go func() { fifth <- p.Publish("x", messageOf(t.Context(), payload)) }()
	for range 5 {
		msg := <-out
		if used := m.env.Memory.Waiting.Used(); used > 3000 {
			t.Errorf("%d bytes wait", used)
		}
		msg.Ack()
	}
	if err := <-fifth; err != nil {
		t.Error(err)
	}
	if used := m.env.Memory.Waiting.Used(); used != 0 {
		t.Errorf("%d bytes are left taken", used)
	}
}

// A consumer and a publisher wait for room that others use up. They go on when the others give it
// back, although nothing else happens.
func TestRoomThatOthersGiveBackIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := build(t, defaults)
		m.env.Memory = transports.Memory{Waiting: transports.NewBudget(25), InFlight: transports.NewBudget(10)}
		m.env.Memory.Waiting.Add(25)
		m.env.Memory.InFlight.Add(10)
		_, out := subscribe(t.Context(), t, m, "a", "x")
		p := publisherOf(t, m)
		if err := p.Publish("x", messageOf(t.Context(), "1")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it is delivered, and stays unsettled
		if err := p.Publish("x", messageOf(t.Context(), "2")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Publish("x", messageOf(ctx, "never")); err == nil || !strings.Contains(err.Error(), "pipeline a, and the limit host.memory.waiting") {
			t.Errorf("Publish without room: %v", err)
		}
		third := make(chan error, 1)
		go func() { third <- p.Publish("x", messageOf(t.Context(), "3")) }()
		synctest.Wait()
		m.env.Memory.Waiting.Give(25)
		if err := <-third; err != nil {
			t.Error(err)
		}
		<-out
		select {
		case <-out:
			t.Error("a message was delivered beyond the budget")
		case <-time.After(time.Minute):
		}
		m.env.Memory.InFlight.Give(10)
		for _, want := range []string{"2", "3"} {
			if msg := <-out; string(msg.Payload) != want {
				t.Errorf("%s came, not %s", msg.Payload, want)
			}
		}
	})
}

func TestWhatIsKeptForTapsIsBoundedInBytes(t *testing.T) {
	m := build(t, defaults)
	p := publisherOf(t, m)
	for range 10 {
		if err := p.Publish("x", messageOf(t.Context(), strings.Repeat("a", maxKeptBytes/4))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(m.topics["x"].kept); n != 4 {
		t.Errorf("%d messages are kept", n)
	}
}
