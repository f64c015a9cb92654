// Package transporttest is the conformance suite of transports. It tests the rules in package
// transports.
//
// The author of a transport calls [Run] from a test. A [Harness] says how to build the transport,
// and how a message gets into it from outside. Run acts like the host: it gets the topic from the
// configuration, builds and starts the transport, subscribes, acks and closes.
package transporttest

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/transports"
)

const (
	// patience is how long the suite waits for what must happen. Only a failing test spends it, so
	// it is long enough for a busy machine.
	patience = 2 * time.Minute
	// quiet is how long the suite waits to see that something doesn't happen.
	quiet = 150 * time.Millisecond
	// maxWindow keeps the window's test small.
	maxWindow = 100
)

// Harness describes the transport under test.
type Harness struct {
	// Config returns a new configuration, which shares no address and no queue with earlier ones.
	// Its topic's window must be from 1 to 100, and buffers must have room for twice that.
	Config func(t *testing.T) transports.Config

	// Topic is the topic that the suite consumes from.
	Topic string

	// Put sends messages to Topic from outside, in this order. It returns when the transport has
	// all of them, without waiting until they are delivered or settled. It must leave no goroutine
	// behind after the transport is closed.
	Put func(t *testing.T, tr transports.Transport, payloads ...string)

	// Read returns the payload that was passed to Put for a message. If Read is nil, that is the
	// message's payload.
	Read func(msg *message.Message) string

	// Unordered says that messages may come in another order than that of Put.
	Unordered bool

	// Redelivers says that a subscription redelivers a message that is nacked.
	Redelivers bool

	// Returns says that the next subscription redelivers the messages that a cancelled one left
	// unacked. They come first and in order.
	Returns bool
}

// Run tests one transport. No other test may run at the same time, because Run looks for leaked
// goroutines.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		run  func(f *fixture)
	}{
		{"order without acks", orderWithoutAcks},
		{"window", window},
		{"cancel without messages", cancelWithoutMessages},
		{"cancel honours acks", cancelHonoursAcks},
		{"nack", nack},
		{"nack keeps order", nackKeepsOrder},
		{"nack after cancel", nackAfterCancel},
		{"subscribe again", subscribeAgain},
		{"message contexts", messageContexts},
		{"close of a subscriber", closeOfSubscriber},
		{"settle in take", settleInTake},
		{"settle twice", settleTwice},
		{"settle a stale delivery", settleStale},
		{"settle a void delivery", settleVoid},
		{"settle during a close", settleDuringClose},
		{"two consumers", twoConsumers},
		{"publish", publish},
		{"publish from many", publishFromMany},
		{"publish with a dead context", publishWithDeadContext},
		{"close of a publisher", closeOfPublisher},
		{"health", health},
		{"quiesce", quiesce},
		{"drain", drain},
		{"tap", tap},
		{"close", closing},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(start(t, h)) })
	}
}

// fixture is one started transport.
type fixture struct {
	*testing.T
	h      Harness
	config transports.Config
	topic  transports.Topic
	tr     transports.Transport
	// sent are the payloads that were put or published.
	sent map[string]bool
}

func start(t *testing.T, h Harness) *fixture {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { checkNoGoroutines(t, before) })

	config := h.Config(t)
	topic, err := config.Topic(h.Topic, transports.Consume)
	if err != nil {
		t.Fatalf("asking about topic %q: %v", h.Topic, err)
	}
	if topic.Window < 1 || topic.Window > maxWindow {
		t.Fatalf("the topic's window is %d; the suite needs 1 to %d", topic.Window, maxWindow)
	}
	tr, err := config.New(transports.Env{
		Name:       "test",
		Host:       "host-1",
		Logger:     slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Now:        time.Now,
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatalf("building the transport: %v", err)
	}
	f := &fixture{T: t, h: h, config: config, topic: topic, tr: tr, sent: map[string]bool{}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := tr.Start(ctx); err != nil {
		t.Fatalf("starting the transport: %v", err)
	}
	t.Cleanup(f.close)
	return f
}

// checkNoGoroutines waits until all goroutines except those in before have ended.
func checkNoGoroutines(t *testing.T, before goleak.Option) {
	t.Helper()
	for begun := time.Now(); ; {
		err := goleak.Find(before) // which waits for a moment
		if err == nil {
			return
		}
		if time.Since(begun) > patience {
			t.Errorf("waited %s until the goroutines of the transport have ended: %v", patience, err)
			return
		}
	}
}

func (f *fixture) close() {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.tr.Close(ctx); err != nil {
		f.Errorf("closing the transport: %v", err)
	}
}

// fewPayloads returns three payloads, or fewer if the window is smaller.
func (f *fixture) fewPayloads() []string { return numbered(min(3, f.topic.Window)) }

// put sends messages to the transport.
func (f *fixture) put(payloads ...string) {
	f.Helper()
	for _, payload := range payloads {
		f.sent[payload] = true
	}
	f.h.Put(f.T, f.tr, payloads...)
}

// expect checks that got is want. If the transport is unordered, got may be any payload that was
// sent.
func (f *fixture) expect(got, want string) {
	f.Helper()
	if got != want && (!f.h.Unordered || !f.sent[got]) {
		f.Fatalf("received %q, want %q", got, want)
	}
}

func (f *fixture) subscriber(pipeline string) message.Subscriber {
	f.Helper()
	return Stock(f.hostSubscriber(pipeline))
}

// hostSubscriber returns a pipeline's subscriber, as the host uses it.
func (f *fixture) hostSubscriber(pipeline string) transports.Subscriber {
	f.Helper()
	s, err := f.tr.Subscriber(transports.Consumer{Pipeline: pipeline})
	if err != nil {
		f.Fatalf("making a subscriber for %s: %v", pipeline, err)
	}
	return s
}

func (f *fixture) subscribe(ctx context.Context, s message.Subscriber) <-chan *message.Message {
	f.Helper()
	out, err := s.Subscribe(ctx, f.h.Topic)
	if err != nil {
		f.Fatalf("subscribing to %s: %v", f.h.Topic, err)
	}
	return out
}

// next receives a message with the payload want.
func (f *fixture) next(out <-chan *message.Message, want string) *message.Message {
	f.Helper()
	msg := f.receive(out)
	f.expect(f.read(msg), want)
	return msg
}

func (f *fixture) receive(out <-chan *message.Message) *message.Message {
	f.Helper()
	select {
	case msg, ok := <-out:
		if !ok {
			f.Fatal("waited for a message, and the output was closed")
		}
		return msg
	case <-time.After(patience):
		f.Fatalf("waited %s for a message; %s", patience, f.describeState())
	}
	return nil
}

// describeState returns the state of the transport, for a test that has waited in vain.
func (f *fixture) describeState() string {
	var text strings.Builder
	text.WriteString("the transport's health:")
	for _, h := range f.tr.Health() {
		fmt.Fprintf(&text, " %s: %v;", h.Part, h.Err)
	}
	stacks := make([]byte, 1<<20)
	fmt.Fprintf(&text, " the goroutines:\n%s", stacks[:runtime.Stack(stacks, true)])
	return text.String()
}

func (f *fixture) read(msg *message.Message) string {
	if f.h.Read != nil {
		return f.h.Read(msg)
	}
	return string(msg.Payload)
}

// expectNothing checks that no message comes and that the output stays open.
func (f *fixture) expectNothing(out <-chan *message.Message, why string) {
	f.Helper()
	select {
	case msg, ok := <-out:
		if !ok {
			f.Fatalf("the output is closed: %s", why)
		}
		f.Fatalf("received %q: %s", f.read(msg), why)
	case <-time.After(quiet):
	}
}

// expectClosed checks that the output closes without another message.
func (f *fixture) expectClosed(out <-chan *message.Message) {
	f.Helper()
	select {
	case msg, ok := <-out:
		if ok {
			f.Fatalf("received %q, want a closed output", f.read(msg))
		}
	case <-time.After(patience):
		f.Fatalf("waited %s until the output is closed; %s", patience, f.describeState())
	}
}

// ack settles a message as the host does.
func (f *fixture) ack(msgs ...*message.Message) {
	f.Helper()
	for _, msg := range msgs {
		if !msg.Ack() {
			f.Fatalf("message %q was already settled", f.read(msg))
		}
	}
}

// expectReturn checks that do returns.
func (f *fixture) expectReturn(act string, do func()) {
	f.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		f.Fatalf("waited %s until %s returns; %s", patience, act, f.describeState())
	}
}
