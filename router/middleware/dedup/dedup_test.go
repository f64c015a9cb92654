package dedup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	stock "github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

// Watermill's middleware starts a goroutine at each use and never ends it.
func TestMain(m *testing.M) {
	await.Main(m, goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/message/router/middleware.(*mapExpiringKeyRepository).cleanOutLoop"))
}

func TestDuties(t *testing.T) {
	middlewaretest.Run(t, func(t *testing.T, env middleware.Env) middleware.Middleware {
		c := defaults
		m, err := c.New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

var errHandler = errors.New("the handler's error")

// rig is a dedup around a handler that fails with err and counts its calls.
type rig struct {
	*middlewaretest.Host
	wrapped message.HandlerFunc
	calls   atomic.Int32
	err     error
}

func newRig(t *testing.T) *rig {
	r := &rig{Host: middlewaretest.NewHost(t)}
	c := defaults
	r.wrapped = r.Build(&c).Wrap(func(msg *message.Message) ([]*message.Message, error) {
		n := r.calls.Add(1)
		if r.err != nil {
			return nil, r.err
		}
		out := handlers.NewMessage([]byte(fmt.Sprintf("result %d of %s", n, msg.Payload)))
		out.Metadata["k"] = "v"
		aside := handlers.NewMessage([]byte("aside"))
		handlers.SetDestination(aside, "broker:aside")
		return []*message.Message{out, aside}, nil
	})
	return r
}

// run runs a message. If it ends without an error, its outputs can be confirmed.
func (r *rig) run(t *testing.T, id, body string, confirmed bool) ([]*message.Message, error) {
	msg, s := middlewaretest.Message(t.Context(), id, "device", body)
	out, err := r.wrapped(msg)
	if err == nil && confirmed {
		err = s.Confirm(t.Context())
	}
	return out, err
}

func key(id string) middleware.LedgerKey {
	return middleware.LedgerKey{Pipeline: "test", ID: id, Device: "device"}
}

func same(t *testing.T, want, got []*message.Message) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i := range want {
		if want[i] == got[i] || !want[i].Equals(got[i]) || handlers.Destination(want[i]) != handlers.Destination(got[i]) {
			t.Errorf("message %d is %+v, want a copy of %+v", i, got[i], want[i])
		}
	}
}

func TestADuplicateGetsTheSameAgain(t *testing.T) {
	for _, confirmed := range []bool{true, false} {
		r := newRig(t)
		first, err := r.run(t, "id", "x", confirmed)
		if err != nil || len(first) != 2 {
			t.Fatalf("%v, %v", first, err)
		}
		want := []*message.Message{first[0].CopyWithContext(), first[1].CopyWithContext()}
		// The router changes the messages that it publishes.
		first[0].Metadata["correlation_id"] = "of the first"
		for range 2 {
			again, err := r.run(t, "id", "x", true)
			if err != nil {
				t.Fatal(err)
			}
			same(t, want, again)
		}
		if n := r.calls.Load(); n != 1 {
			t.Errorf("the handler was called %d times", n)
		}
		if s := r.Ledger.State(key("id")); s != "confirmed" {
			t.Errorf("the record is %s", s)
		}
	}
}

func TestOutputsThatNobodyConfirmedAreNotRecordedAsConfirmed(t *testing.T) {
	r := newRig(t)
	if _, err := r.run(t, "id", "x", false); err != nil {
		t.Fatal(err)
	}
	if s := r.Ledger.State(key("id")); s != "done" {
		t.Errorf("the record is %s", s)
	}
}

// The ack waits until the ledger has recorded that the outputs are confirmed, or until the host
// ends.
func TestAConfirmationIsRecordedBeforeTheAck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		failing := 5
		r.Ledger.Fail(func(call string) error {
			if call != "confirm" || failing == 0 {
				return nil
			}
			failing--
			return handlers.Unavailable(errors.New("no space left on device"))
		})
		if _, err := r.run(t, "id", "x", true); err != nil {
			t.Fatal(err)
		}
		if s := r.Ledger.State(key("id")); s != "confirmed" || failing != 0 {
			t.Errorf("the record is %s, %d failures are left", s, failing)
		}
		failing = 1000
		msg, s := middlewaretest.Message(t.Context(), "other", "device", "x")
		if _, err := r.wrapped(msg); err != nil {
			t.Fatal(err)
		}
		stopping, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Confirm(stopping); err == nil {
			t.Error("confirmed while the ledger is away")
		}
	})
}

func TestWithoutAnIDMessagesPass(t *testing.T) {
	r := newRig(t)
	for range 2 {
		if _, err := r.run(t, "", "x", true); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.calls.Load(); n != 2 {
		t.Errorf("the handler was called %d times", n)
	}
}

// refuser is a handler that returns results for refused messages. With unrefusing, Refuse fails.
type unrefusing struct{ handlers.Handler }

func (unrefusing) Refuse(context.Context, *message.Message, handlers.Reason) ([]*message.Message, error) {
	return nil, errHandler
}

type refuser struct{ handlers.Handler }

func (refuser) Refuse(_ context.Context, msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	return []*message.Message{handlers.NewMessage([]byte(string(msg.Payload) + ": " + string(reason)))}, nil
}

func TestOtherBodyIsRefused(t *testing.T) {
	r := newRig(t)
	if _, err := r.run(t, "id", "x", true); err != nil {
		t.Fatal(err)
	}
	_, err := r.run(t, "id", "y", true)
	if handlers.KindOf(err) != handlers.KindPermanent || !strings.Contains(err.Error(), "id reused") {
		t.Errorf("a handler that can't refuse: %v", err)
	}
	msg, _ := middlewaretest.MessageFor(t.Context(), "id", "device", "y", refuser{})
	out, err := r.wrapped(msg)
	if err != nil || len(out) != 1 || string(out[0].Payload) != "y: id reused" {
		t.Errorf("%v, %v", out, err)
	}
	if n := r.calls.Load(); n != 1 {
		t.Errorf("the handler was called %d times", n)
	}
}

// comesBack runs a message that its source didn't redeliver.
type comesBack struct{ *handlertest.Scope }

func (comesBack) Resumed() *handlers.Resumption { return &handlers.Resumption{Abandoned: true} }
func (comesBack) MayHold(string)                {}
func (comesBack) HeldBefore(string) (<-chan struct{}, error) {
	return nil, nil
}
func (comesBack) Held(*handlers.Held) {}

func TestAnAbandonedMessageIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		handler handlers.Handler
		want    string
	}{
		"by a handler that can": {refuser{}, ": " + string(handlers.ReasonAbandoned)},
		"by none":               {nil, ""},
		"by one that fails":     {unrefusing{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.err = errHandler
			msg, s := middlewaretest.MessageFor(t.Context(), "id", "device", "", c.handler)
			if _, err := r.Ledger.Reserve(t.Context(), key("id"), middleware.Digest{}, middleware.Origin{}); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Ledger.Begin(key("id"), false); err != nil {
				t.Fatal(err)
			}
			r.Ledger.Release(key("id"))
			msg.SetContext(handlers.WithScope(msg.Context(), comesBack{s}))
			out, err := r.wrapped(msg)
			if r.calls.Load() != 0 || handlers.KindOf(err) != handlers.KindDrop && err != nil {
				t.Errorf("%d calls, %v", r.calls.Load(), err)
			}
			got := ""
			for _, msg := range out {
				got += string(msg.Payload)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if err := s.Confirm(t.Context()); err != nil || r.Ledger.State(key("id")) != "confirmed" {
				t.Errorf("%v, the record is %s", err, r.Ledger.State(key("id")))
			}
			for _, id := range []string{"another", ""} {
				if _, err := r.run(t, id, "x", true); !errors.Is(err, errHandler) {
					t.Errorf("after it the id %q: %v", id, err)
				}
			}
			if n := r.calls.Load(); n != 2 {
				t.Errorf("the handler was called %d times for the two messages after it", n)
			}
		})
	}
}

func TestAFailureIsForgotten(t *testing.T) {
	for name, made := range map[string]error{
		"retryable": errHandler, "permanent": handlers.Permanent(errHandler), "unavailable": handlers.Unavailable(errHandler),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.err = made
			if _, err := r.run(t, "id", "x", true); !errors.Is(err, made) {
				t.Fatal(err)
			}
			if s := r.Ledger.State(key("id")); s != "" {
				t.Errorf("the record is %s", s)
			}
			r.err = nil
			if out, err := r.run(t, "id", "another body", true); err != nil || len(out) != 2 {
				t.Errorf("the next run: %v, %v", out, err)
			}
		})
	}
}

func TestADropIsRemembered(t *testing.T) {
	r := newRig(t)
	r.err = handlers.Drop(errHandler)
	if _, err := r.run(t, "id", "x", true); !errors.Is(err, errHandler) {
		t.Fatal(err)
	}
	if out, err := r.run(t, "id", "x", true); err != nil || len(out) != 0 || r.calls.Load() != 1 {
		t.Errorf("a duplicate: %v, %v after %d calls", out, err, r.calls.Load())
	}
}

func TestACancelledRun(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		state string
	}{
		{"that succeeded is remembered", nil, "done"},
		{"that failed is forgotten", errHandler, ""},
		{"that was dropped is forgotten", handlers.Drop(errHandler), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := middlewaretest.NewHost(t)
			config := defaults
			ctx, cancel := context.WithCancelCause(t.Context())
			msg, _ := middlewaretest.Message(ctx, "id", "device", "x")
			_, err := h.Build(&config).Wrap(func(*message.Message) ([]*message.Message, error) {
				cancel(transports.ErrVoid)
				return nil, c.err
			})(msg)
			if !errors.Is(err, c.err) {
				t.Error(err)
			}
			if s := h.Ledger.State(key("id")); s != c.state {
				t.Errorf("the record is %q, want %q", s, c.state)
			}
		})
	}
}

// Once the handler has succeeded, only the commit is tried again, whatever happens to the
// delivery.
func TestAFailedCommitIsCommittedLater(t *testing.T) {
	r := newRig(t)
	outage := errors.New("disk full")
	r.Ledger.Fail(func(call string) error {
		if call == "commit" {
			return outage
		}
		return nil
	})
	for range 3 {
		out, err := r.run(t, "id", "x", true)
		if !errors.Is(err, outage) || handlers.KindOf(err) != handlers.KindUnavailable || out != nil {
			t.Fatalf("%v, %v", out, err)
		}
	}
	r.Ledger.Fail(func(string) error { return nil })
	out, err := r.run(t, "id", "x", true)
	if err != nil || len(out) != 2 || string(out[0].Payload) != "result 1 of x" {
		t.Errorf("%v, %v", out, err)
	}
	if n := r.calls.Load(); n != 1 {
		t.Errorf("the handler was called %d times", n)
	}
	if s := r.Ledger.State(key("id")); s != "confirmed" {
		t.Errorf("the record is %s", s)
	}
}

func TestALedgerThatIsDown(t *testing.T) {
	r := newRig(t)
	r.Ledger.Fail(func(string) error { return handlers.Unavailable(errors.New("connection refused")) })
	if _, err := r.run(t, "id", "x", true); handlers.KindOf(err) != handlers.KindUnavailable || r.calls.Load() != 0 {
		t.Errorf("%v after %d calls", err, r.calls.Load())
	}
}

// If a duplicate arrives while the first message is being handled, it waits for its end. A
// cancelled run stops waiting.
func TestADuplicateWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middlewaretest.NewHost(t)
		c := defaults
		calls := 0
		wrapped := h.Build(&c).Wrap(func(*message.Message) ([]*message.Message, error) {
			calls++
			time.Sleep(time.Minute)
			return []*message.Message{handlers.NewMessage(nil)}, nil
		})
		ids := make(chan string, 2)
		for range 2 {
			go func() {
				msg, _ := middlewaretest.Message(t.Context(), "id", "device", "x")
				out, err := wrapped(msg)
				if err != nil || len(out) != 1 {
					t.Errorf("%v, %v", out, err)
				}
				ids <- out[0].UUID
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(transports.ErrVoid)
		msg, _ := middlewaretest.Message(ctx, "id", "device", "x")
		if out, err := wrapped(msg); !errors.Is(err, transports.ErrVoid) {
			t.Errorf("a cancelled run: %v, %v", out, err)
		}
		if first, second := <-ids, <-ids; first != second || calls != 1 {
			t.Errorf("%s and %s after %d calls", first, second, calls)
		}
	})
}

// Watermill's Deduplicator remembers a message before it is handled. If a message fails and is
// redelivered, it is dropped and lost.
func TestAFailedMessageIsNotLost(t *testing.T) {
	second := func(wrap message.HandlerMiddleware) int {
		calls := 0
		wrapped := wrap(func(*message.Message) ([]*message.Message, error) {
			calls++
			return nil, errHandler
		})
		for range 2 {
			msg, _ := middlewaretest.Message(t.Context(), "id", "device", "x")
			_, _ = wrapped(msg)
		}
		return calls
	}
	if second((&stock.Deduplicator{}).Middleware) != 1 {
		t.Error("the stock middleware handles a failed message again: the hazard is gone")
	}
	c := defaults
	if n := second(middlewaretest.NewHost(t).Build(&c).Wrap); n != 2 {
		t.Errorf("handled %d times", n)
	}
}

// Watermill's Deduplicator confuses short commands, since its key is the Adler-32 of the body.
func TestDifferentMessagesAreKeptApart(t *testing.T) {
	const commands = 2000
	handled := func(wrap message.HandlerMiddleware) int {
		seen := map[string]bool{}
		wrapped := wrap(func(msg *message.Message) ([]*message.Message, error) {
			seen[string(msg.Payload)] = true
			return nil, nil
		})
		for i := range commands {
			msg, _ := middlewaretest.Message(t.Context(), fmt.Sprint(i), "device", fmt.Sprintf(`{"address":"10.0.%d.%d","cmd":"on"}`, i/250, i%250))
			if _, err := wrapped(msg); err != nil {
				t.Fatal(err)
			}
		}
		return len(seen)
	}
	if handled((&stock.Deduplicator{}).Middleware) == commands {
		t.Error("the stock middleware lost nothing: the hazard is gone")
	}
	c := defaults
	if n := handled(middlewaretest.NewHost(t).Build(&c).Wrap); n != commands {
		t.Errorf("%d of %d were handled", n, commands)
	}
}

func TestValidate(t *testing.T) {
	err := (&Config{}).Validate()
	for _, field := range []string{"retention", "max_entries", "begun_timeout"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%v says nothing of %s", err, field)
		}
	}
	c := defaults
	if diff := cmp.Diff(Config{Retention: 10 * time.Minute, MaxEntries: 100_000, Begun: 10 * time.Minute}, c); diff != "" || c.Validate() != nil {
		t.Errorf("%s %v", diff, c.Validate())
	}
}
