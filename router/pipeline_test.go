package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// recorder is a handler whose runs last until the test ends them.
type recorder struct {
	mu      sync.Mutex
	started []string
	running map[string]chan error
	place   bool // call Enqueued
}

func newRecorder() *recorder { return &recorder{running: map[string]chan error{}} }

func (r *recorder) handle(msg *message.Message) ([]*message.Message, error) {
	id := msg.Metadata.Get(transports.MessageID)
	end := make(chan error, 1)
	r.mu.Lock()
	r.started = append(r.started, id)
	r.running[id] = end
	r.mu.Unlock()
	if r.place {
		handlers.Enqueued(msg.Context())
	}
	select {
	case err := <-end:
		if err != nil {
			return nil, err
		}
		return echo(msg)
	case <-msg.Context().Done():
		return nil, context.Cause(msg.Context())
	}
}

func (r *recorder) starts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.started)
}

// end ends the run of a message, and waits until all goroutines are blocked.
func (r *recorder) end(id string, err error) {
	r.mu.Lock()
	c := r.running[id]
	r.mu.Unlock()
	c <- err
	synctest.Wait()
}

func TestOneMessageOfAKeyRunsUntilSettled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(r.handle))
		defer h.stop()
		for _, m := range []string{"a 1", "a 2", "b 3", "a 4", "b 5"} {
			key, id, _ := strings.Cut(m, " ")
			h.in.send(key, id)
			synctest.Wait()
		}
		equal(t, "started", r.starts(), []string{"1", "3"})
		r.end("1", nil)
		equal(t, "started after 1", r.starts(), []string{"1", "3", "2"})
		r.end("3", nil)
		r.end("2", nil)
		r.end("5", nil)
		r.end("4", nil)
		equal(t, "settled", h.in.settlements(), []string{"ack 1", "ack 3", "ack 2", "ack 5", "ack 4"})
		equal(t, "published", h.out.outputs(), []string{"results a 1", "results b 3", "results a 2", "results b 5", "results a 4"})
		m := h.pipelines[0].metrics
		for name, c := range map[string]prometheus.Counter{"received": m.received, "acked": m.acked, "published": m.published} {
			if got := testutil.ToFloat64(c); got != 5 {
				t.Errorf("%v %s, want 5", got, name)
			}
		}
	})
}

func TestEnqueuedStartsTheNextUpToTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		r.place = true
		h := newHarness(t, handlerFunc(r.handle), lanesOf(func(l *Lanes) { l.Limit = 3 }))
		defer h.stop()
		for i := range 5 {
			h.in.send("a", fmt.Sprint(i))
		}
		synctest.Wait()
		equal(t, "started", r.starts(), []string{"0", "1", "2"})
		r.end("1", nil)
		equal(t, "started", r.starts(), []string{"0", "1", "2", "3"})
		for _, id := range []string{"0", "2", "3", "4"} {
			r.end(id, nil)
		}
	})
}

func TestAFailedPublishRepeatsTheSameMessageAndNeverTheHandler(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(r.handle))
		defer h.stop()
		h.out.failPublishing(transports.ErrUndecided)
		h.in.send("a", "1")
		synctest.Wait()
		r.end("1", nil)
		pass(time.Minute)
		if got := h.in.settlements(); len(got) != 0 {
			t.Errorf("settled before the confirm: %q", got)
		}
		if err := errors.Join(h.pipelines[0].out.outages()...); !errors.Is(err, transports.ErrUndecided) {
			t.Errorf("health says %v", err)
		}
		h.out.failPublishing(nil)
		pass(3 * time.Second)
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
		equal(t, "started", r.starts(), []string{"1"})
		if _, attempts := h.out.counts(); attempts < 10 {
			t.Errorf("only %d attempts in a minute", attempts)
		}
		if err := h.pipelines[0].out.outages(); err != nil {
			t.Errorf("health still says %v", err)
		}
	})
}

func TestWhatCanNeverBeSentHoldsUpNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo))
		defer h.stop()
		h.out.failPublishing(fmt.Errorf("%w: too large", transports.ErrUnsendable))
		if o := <-h.in.put(newSent("body")).outcome; o.Code != 400 || !errors.Is(o.Err, transports.ErrUnsendable) {
			t.Errorf("outcome %+v", o)
		}
		h.out.failPublishing(nil)
		h.in.send("a", "2")
		synctest.Wait()
		equal(t, "published", h.out.outputs(), []string{"results a 2"})
		if _, attempts := h.out.counts(); attempts != 2 {
			t.Errorf("%d attempts for two messages", attempts)
		}
	})
}

func TestUnavailablePausesProbesAndRunsInArrivalOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		var down atomic.Bool
		down.Store(true)
		calls := 0
		var ran []string
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			mu.Lock()
			defer mu.Unlock()
			handlers.Enqueued(msg.Context())
			calls++
			if down.Load() {
				return nil, handlers.Unavailable(errBroken)
			}
			ran = append(ran, msg.Metadata.Get(transports.MessageID))
			return nil, nil
		}), lanesOf(func(l *Lanes) { l.Limit = 4 }))
		defer h.stop()
		for i := range 8 {
			h.in.send("a", fmt.Sprint(i))
		}
		synctest.Wait()
		before := calls
		if err := h.pipelines[0].intake.pauseError(); !errors.Is(err, errBroken) {
			t.Fatalf("health says %v", err)
		}
		pass(30 * time.Second)
		mu.Lock()
		if probes := calls - before; probes < 5 || probes > 12 {
			t.Errorf("%d probes in 30 s", probes)
		}
		down.Store(false)
		mu.Unlock()
		pass(lastProbe)
		equal(t, "ran", ran, []string{"0", "1", "2", "3", "4", "5", "6", "7"})
		if err := h.pipelines[0].intake.pauseError(); err != nil {
			t.Errorf("still %v", err)
		}
		if got := h.in.settlements(); len(got) != 8 || slices.ContainsFunc(got, func(s string) bool { return !strings.HasPrefix(s, "ack") }) {
			t.Errorf("settled %q", got)
		}
	})
}

func TestErrorKindsThatLeaveTheList(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		code int
	}{
		{"retryable", errBroken, 500},
		{"permanent", handlers.Permanent(errBroken), 400},
		{"drop", handlers.Drop(errBroken), 200},
		{"none", nil, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) { return nil, c.err }))
				defer h.stop()
				if o := <-h.in.put(newSent("", transports.MessageID, "1")).outcome; o.Code != c.code || !errors.Is(o.Err, c.err) || o.ID != "1" {
					t.Errorf("the caller gets %+v", o)
				}
			})
		})
	}
}

func TestAnErrorThatMustNotLeaveTheListKeepsTheMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var fail atomic.Bool
		fail.Store(true)
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			if fail.Load() {
				return nil, errBroken
			}
			return nil, nil
		}), func(c *Config) { c.Pipelines[0].DropErrors = false })
		defer h.stop()
		h.in.send("a", "1")
		synctest.Wait()
		if got := h.in.settlements(); len(got) != 0 {
			t.Fatalf("settled %q", got)
		}
		fail.Store(false)
		pass(time.Second)
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
	})
}

// No error leaves the chain with a secret in its text. Each keeps its kind and cause.
func TestAnErrorHasNoSecret(t *testing.T) {
	for name, fail := range map[string]func() error{
		"an error": func() error { return handlers.Permanent(fmt.Errorf("key hush: %w", errBroken)) },
		"a panic":  func() error { panic("key hush") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var inside error
				watch := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
					return func(msg *message.Message) ([]*message.Message, error) {
						_, inside = next(msg)
						return nil, handlers.Permanent(fmt.Errorf("hush: %w", inside))
					}
				})
				h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) { return nil, fail() }), func(c *Config) {
					c.Redact = func(text string) string { return strings.ReplaceAll(text, "hush", "[redacted]") }
					c.Pipelines[0].Middleware = []Middleware{{Config: watch}}
				})
				defer h.stop()
				o := <-h.in.send("a", "1").outcome
				for _, err := range []error{inside, o.Err} {
					if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "key [redacted]") {
						t.Errorf("the error is %v", err)
					}
				}
				if name == "an error" && (!errors.Is(o.Err, errBroken) || handlers.KindOf(inside) != handlers.KindPermanent) {
					t.Errorf("the error is %#v", o.Err)
				}
			})
		})
	}
}

func TestAPanicIsARetryableError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var seen error
		watch := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				_, seen = next(msg)
				panic("and the middleware too")
			}
		})
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) { panic("no") }),
			func(c *Config) { c.Pipelines[0].Middleware = []Middleware{{Name: "watch", Config: watch}} })
		defer h.stop()
		h.in.send("a", "1")
		synctest.Wait()
		if seen == nil || handlers.KindOf(seen) != handlers.KindRetryable {
			t.Errorf("the middleware saw %v", seen)
		}
		equal(t, "settled", h.in.settlements(), []string{"ack 1"})
	})
}

func TestOutputsGoToTheirDestinationsAndInheritTheTrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			a, b := handlers.NewMessage([]byte("a")), handlers.NewMessage([]byte("b"))
			handlers.SetDestination(b, "in:elsewhere")
			return []*message.Message{a, b}, nil
		}))
		defer h.stop()
		h.in.send("a", "1", transports.CorrelationID, "c", transports.TraceParent, "t", "other", "x")
		synctest.Wait()
		equal(t, "out", h.out.outputs(), []string{"results a"})
		equal(t, "in", h.in.outputs(), []string{"elsewhere b"})
		got := h.out.published[0].Metadata
		if got[transports.CorrelationID] != "c" || got[transports.TraceParent] != "t" || got["other"] != "" {
			t.Errorf("metadata %v", got)
		}
	})
}

func TestWithoutToOutputsAreTheReply(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := newHarness(t, handlerFunc(echo), func(c *Config) { c.Pipelines[0].To = "" })
		defer h.stop()
		if o := <-h.in.put(newSent("x")).outcome; len(o.Messages) != 1 || string(o.Messages[0].Payload) != "x" || o.Published {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestASwallowedErrorReachesTheCaller(t *testing.T) {
	bubble(t, func(t *testing.T) {
		swallow := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				_, err := next(msg)
				middleware.Swallowed(msg.Context(), err)
				return nil, nil
			}
		})
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) { return nil, handlers.Permanent(errBroken) }),
			func(c *Config) { c.Pipelines[0].Middleware = []Middleware{{Name: "swallow", Config: swallow}} })
		defer h.stop()
		if o := <-h.in.put(newSent("")).outcome; o.Code != 400 || !errors.Is(o.Err, errBroken) {
			t.Errorf("outcome %+v", o)
		}
	})
}

func TestAnImpatientSourceIsAnsweredUnavailable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			if down.Load() {
				return nil, handlers.Unavailable(errBroken)
			}
			return echo(msg)
		}), func(c *Config) { c.Transports[0].Config.(*fakeSystem).traits.Impatient = true })
		defer h.stop()
		ask := func() *transports.Outcome { return <-h.in.put(newSent("")).outcome }
		for range 3 {
			if o := ask(); o.Code != 503 || !errors.Is(o.Err, errBroken) {
				t.Fatalf("outcome %+v", o)
			}
		}
		down.Store(false)
		pass(time.Second)
		if o := ask(); o.Code != 200 {
			t.Errorf("outcome after the outage %+v", o)
		}
		if err := h.pipelines[0].intake.pauseError(); err != nil {
			t.Errorf("still paused: %v", err)
		}
	})
}

func TestKeySettingOrders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRecorder()
		h := newHarness(t, handlerFunc(r.handle), func(c *Config) { c.Pipelines[0].Key = "payload.a.b" })
		defer h.stop()
		for i, body := range []string{`{"a":{"b":"x"}}`, `{"a":{"b":"x"}}`, `{"a":{"b":7}}`, `{}`, `[]`} {
			h.in.put(newSent(body, transports.MessageID, fmt.Sprint(i)))
			synctest.Wait()
		}
		equal(t, "started", r.starts(), []string{"0", "2", "3", "4"})
		for _, id := range []string{"0", "1", "2", "3", "4"} {
			r.end(id, nil)
		}
	})
}

// batcher handles batches, and fails the messages whose id says that they fail.
type batcher struct {
	handlerFunc
	mu      sync.Mutex
	batches []string
}

func (b *batcher) New(handlers.Env) (handlers.Handler, error) { return b, nil }

func (b *batcher) HandleBatch(_ context.Context, msgs []*message.Message) []handlers.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	var outcomes []handlers.Outcome
	for _, msg := range msgs {
		id := msg.Metadata.Get(transports.MessageID)
		ids = append(ids, id)
		switch id {
		case "panic":
			panic("in a batch")
		case "bad":
			outcomes = append(outcomes, handlers.Outcome{Err: handlers.Permanent(errBroken)})
		default:
			out, _ := echo(msg)
			outcomes = append(outcomes, handlers.Outcome{Messages: out})
		}
	}
	b.batches = append(b.batches, strings.Join(ids, " "))
	return outcomes
}

func TestBatchesAreGatheredInOrderAndSettledOneByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := &batcher{}
		h := newHarness(t, b, func(c *Config) {
			c.Pipelines[0].Batch = Batch{Size: 3, Interval: time.Second}
			c.Pipelines[0].Lanes.Limit = 4
		})
		defer h.stop()
		for _, id := range []string{"1", "bad", "3", "4", "panic"} {
			h.in.send("a", id)
		}
		pass(5 * time.Second)
		equal(t, "batches", b.batches, []string{"1 bad 3"})
		equal(t, "published", sorted(h.out.outputs()), []string{"results a 1", "results a 3"})
		if got := h.in.settlements(); len(got) != 5 {
			t.Errorf("settled %q", got)
		}
	})
}
