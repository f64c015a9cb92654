package router

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

type testKey struct{}

// A run may change its message. The next run gets the message as it was delivered.
func TestARerunGetsWhatWasDelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen []string
		var messages []*message.Message
		change := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				seen = append(seen, fmt.Sprint(string(msg.Payload), msg.Metadata, msg.Context().Value(testKey{})))
				messages = append(messages, msg)
				msg.Payload = append(msg.Payload, " and more"...)
				msg.UUID = "another"
				msg.Metadata["added"] = "by the run"
				delete(msg.Metadata, "colour")
				msg.SetContext(context.WithValue(msg.Context(), testKey{}, "by the run"))
				return next(msg)
			}
		})
		runs := 0
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			if runs++; runs < 3 {
				return nil, handlers.Unavailable(errBroken)
			}
			return echo(msg)
		}), func(c *Config) { c.Pipelines[0].Middleware = []Middleware{{Name: "change", Config: change}} })
		defer h.stop()
		sent := h.in.send("a", "1", "colour", "blue")
		pass(time.Minute)
		if o := <-sent.outcome; o == nil || o.Code != 200 {
			t.Errorf("outcome %+v", o)
		}
		if len(seen) != 3 || seen[0] != seen[1] || seen[1] != seen[2] || !strings.Contains(seen[0], "colour:blue") {
			t.Errorf("the runs saw %q", seen)
		}
		if messages[0] == messages[1] || messages[1] == messages[2] {
			t.Error("two runs had the same message")
		}
		equal(t, "published", h.out.outputs(), []string{"results a 1 and more"})
	})
}

// A redelivered message takes the run over, and the end of the run settles the new delivery.
func TestARunSettlesTheDeliveryThatTookItOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo))
		defer h.stop()
		h.out.failPublishing(errBroken)
		sent := h.in.send("a", "1")
		synctest.Wait()
		h.in.cut(h.in.subs[0])
		pass(time.Second)
		if _, attempts := h.out.counts(); len(h.in.settlements()) != 0 || attempts == 0 {
			t.Fatalf("settled %q after %d attempts to publish", h.in.settlements(), attempts)
		}
		h.out.failPublishing(nil)
		pass(5 * time.Second)
		if o := <-sent.outcome; o == nil || !o.Published {
			t.Errorf("outcome %+v", o)
		}
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
		equal(t, "published", h.out.outputs(), []string{"results a 1"})
	})
}

// More messages may run at once than outBuffer allows to wait for Watermill.
func TestAllMayRunAtOnce(t *testing.T) {
	const n = 5 * outBuffer
	bubble(t, func(t *testing.T) {
		var running atomic.Int32
		end := make(chan struct{})
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			running.Add(1)
			<-end
			return echo(msg)
		}), func(c *Config) { c.Transports[0].Config.(*fakeSystem).traits.Window = n })
		defer h.stop()
		before := runtime.NumGoroutine()
		for i := range n {
			h.in.send(fmt.Sprint(i), fmt.Sprint(i))
		}
		synctest.Wait()
		if got := running.Load(); got != n {
			t.Errorf("%d messages run, want %d", got, n)
		}
		if got := runtime.NumGoroutine() - before; got > n+n/10 {
			t.Errorf("%d messages in flight hold %d goroutines", n, got)
		}
		close(end)
		synctest.Wait()
		if got := len(h.in.settlements()); got != n {
			t.Errorf("%d messages are settled, want %d", got, n)
		}
	})
}

// A panic in Describe ends only that message, not the host.
func TestAPanicInDescribe(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, describing{handlerFunc(echo)})
		defer h.stop()
		h.in.send("a", "panic")
		h.in.send("a", "fine")
		synctest.Wait()
		equal(t, "settled", sorted(h.in.settlements()), []string{"ack fine", "ack panic"})
	})
}

type describing struct{ handlerFunc }

func (d describing) New(handlers.Env) (handlers.Handler, error) { return d, nil }

func (describing) Describe(msg *message.Message) (handlers.Description, error) {
	if msg.Metadata[transports.MessageID] == "panic" {
		panic("on purpose")
	}
	return handlers.Description{Key: "a"}, nil
}

// Deliveries of one context arrive, are settled and become void at the same time. There is no
// race, and no message is lost.
func TestVoidWhileSettling(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			handlers.Enqueued(msg.Context())
			return echo(msg)
		}))
		defer h.stop()
		var ids []string
		var work sync.WaitGroup
		for round := range 20 {
			h.in.mu.Lock()
			subs := slices.Clone(h.in.subs)
			h.in.mu.Unlock()
			for i := range 10 {
				id := fmt.Sprintf("%d-%d", round, i)
				ids = append(ids, "ack "+id)
				work.Go(func() { h.in.send("a", id) })
			}
			for _, sub := range subs {
				work.Go(func() { h.in.cut(sub) })
			}
			work.Wait()
			pass(time.Second)
		}
		pass(time.Minute)
		slices.Sort(ids)
		equal(t, "settled", sorted(h.in.settlements()), ids)
	})
}

// If a caller hangs up before its message starts, or if the host stops, the caller gets the error
// that the message hasn't started.
func TestWhatDidNotStartIsToldAsThat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		end := make(chan struct{})
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			<-end
			return echo(msg)
		}), callers)
		told := make(chan *transports.Outcome, 2)
		deliver := func(ctx context.Context) {
			h.pipelines[0].intake.takeDelivery(&transports.Delivery{
				Metadata: message.Metadata{transports.Device: "a"}, Context: ctx,
				Settle: func(o *transports.Outcome) { told <- o },
			})
		}
		h.in.send("a", "first")
		ctx, leave := context.WithCancelCause(context.Background())
		deliver(ctx)
		deliver(context.Background())
		synctest.Wait()
		leave(transports.ErrVoid)
		pass(time.Second)
		if o := <-told; o == nil || o.Code != 503 || !errors.Is(o.Err, transports.ErrNotStarted) {
			t.Errorf("the one who left is told %+v", o)
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			h.stop()
		}()
		if o := <-told; o == nil || o.Code != 503 || !errors.Is(o.Err, transports.ErrNotStarted) {
			t.Errorf("the one who waits in a stop is told %+v", o)
		}
		close(end)
		<-stopped
	})
}

// A panic outside of the chain, or a nil output, blocks neither the lane nor the stop.
func TestARunEndsWhateverHappens(t *testing.T) {
	var panicked atomic.Bool
	panicOnce := func(context.Context) error {
		if panicked.CompareAndSwap(false, true) {
			panic("on purpose")
		}
		return nil
	}
	for name, c := range map[string]struct {
		handle  handlerFunc
		replace func(msgs []*message.Message) []*message.Message
		settled []string
	}{
		"a panic in what asked to be told": {
			handle: func(msg *message.Message) ([]*message.Message, error) {
				if string(msg.Payload) == "a 1" {
					handlers.OnConfirmed(msg.Context(), panicOnce)
				}
				return echo(msg)
			},
			settled: []string{"ack 1", "ack 2"},
		},
		"a middleware that returns nil for a message": {
			handle:  echo,
			replace: func([]*message.Message) []*message.Message { return []*message.Message{nil} },
			settled: []string{"ack 1", "ack 2"},
		},
		"an output without metadata": {
			handle: echo,
			replace: func(msgs []*message.Message) []*message.Message {
				return []*message.Message{{UUID: "u", Payload: msgs[0].Payload}}
			},
			settled: []string{"ack 1", "ack 2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				change := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
					return func(msg *message.Message) ([]*message.Message, error) {
						msgs, err := next(msg)
						if c.replace != nil && err == nil {
							msgs = c.replace(msgs)
						}
						return msgs, err
					}
				})
				h := newHarness(t, c.handle, func(config *Config) {
					config.Pipelines[0].Middleware = []Middleware{{Name: "change", Config: change}}
				})
				h.in.send("a", "1")
				h.in.send("a", "2")
				pass(time.Minute)
				equal(t, "settled", h.in.settlements(), c.settled)
				if n := len(h.pipelines[0].intake.active); n != 0 {
					t.Errorf("%d runs are active", n)
				}
				h.stop()
			})
		})
	}
}

// A panic of a transport in Settle doesn't end the pipeline.
func TestAPanicInSettle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo))
		defer h.stop()
		h.pipelines[0].intake.takeDelivery(&transports.Delivery{
			Metadata: message.Metadata{transports.Device: "a"}, Context: context.Background(),
			Settle: func(*transports.Outcome) { panic("on purpose") },
		})
		h.in.send("a", "2")
		synctest.Wait()
		equal(t, "settled", h.in.settlements(), []string{"ack 2"})
	})
}

// A message that may be held becomes void before it runs again. It doesn't block other messages.
func TestWhatIsDroppedIsDecided(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo))
		defer h.stop()
		in := h.pipelines[0].intake
		in.holds = &holds{wake: make(chan struct{}, 1), queues: newHeldQueues(10, 10)}
		in.holds.queues.loadOwned(nil)
		ctx, cut := context.WithCancelCause(context.Background())
		e := &entry{
			delivery: &transports.Delivery{Context: ctx, Settle: func(*transports.Outcome) {}}, desc: handlers.Description{Key: "a", ID: "1"},
		}
		in.mu.Lock()
		in.lanes.addEntry(e, false, time.Now())
		in.lanes.startNext(time.Now())
		in.holds.queues.markUndecided(e, "a")
		in.holds.queues.settleRun(e, false, true, time.Now())
		in.lanes.endRun(e, true, time.Now())
		in.mu.Unlock()
		cut(transports.ErrVoid)
		pass(time.Second)
		copied := &entry{delivery: &transports.Delivery{Context: context.Background()}, desc: e.desc}
		if wait, err := in.holds.queues.pendingOlder(copied, "a"); wait != nil || err != nil || len(in.holds.queues.byAwaits) != 0 {
			t.Errorf("the copy waits: %v, %v; %d queues", wait != nil, err, len(in.holds.queues.byAwaits))
		}
		in.holds = nil
	})
}
