package middlewaretest

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// patience is how long the suite waits for a condition. Only a failing test waits that long, so it
// is enough for a busy machine.
const patience = 2 * time.Minute

var errHandler = errors.New("the handler's error")

// Run checks a middleware against the duties in the comment of middleware.Middleware. build
// returns a new instance. Settings that make it wait should be small.
func Run(t *testing.T, build func(t *testing.T, env middleware.Env) middleware.Middleware) {
	run := func(name string, f func(t *testing.T, m middleware.Middleware)) {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			m := build(t, NewHost(t).Env())
			f(t, m)
			if c, ok := m.(io.Closer); ok {
				if err := c.Close(); err != nil {
					t.Errorf("closing the middleware: %v", err)
				}
			}
			nothingLeft(t, before)
		})
	}
	run("OutputsPass", outputsPass)
	run("ContextIsRestored", contextIsRestored)
	run("UnavailablePasses", func(t *testing.T, m middleware.Middleware) {
		msg, s := Message(t.Context(), "id", "key", "{}")
		calls := 0
		out, err := m.Wrap(func(*message.Message) ([]*message.Message, error) {
			calls++
			return nil, handlers.Unavailable(errHandler)
		})(msg)
		if !errors.Is(err, errHandler) || handlers.KindOf(err) != handlers.KindUnavailable || calls != 1 || len(out) != 0 {
			t.Errorf("%v, %v after %d calls, want the handler's error after one", out, err, calls)
		}
		if len(s.Errors()) != 0 {
			t.Errorf("an outage was swallowed: %v", s.Errors())
		}
	})
	run("CancelledPasses", cancelledPasses)
	run("ErrorsKeepTheirKind", errorsKeepTheirKind)
	run("PanicsAreNotSuccess", func(t *testing.T, m middleware.Middleware) {
		msg, s := Message(t.Context(), "id", "key", "{}")
		defer func() {
			if recover() == nil && len(s.Errors()) == 0 {
				t.Error("a panic became a success")
			}
		}()
		if _, err := m.Wrap(func(*message.Message) ([]*message.Message, error) { panic("the handler's panic") })(msg); err != nil {
			panic(err)
		}
	})
	run("AfterAPanic", func(t *testing.T, m middleware.Middleware) {
		msg, _ := Message(t.Context(), "id", "key", "{}")
		broken := true
		wrapped := m.Wrap(func(*message.Message) ([]*message.Message, error) {
			if broken {
				panic("the handler's panic")
			}
			return nil, nil
		})
		func() {
			defer func() { _ = recover() }()
			_, _ = wrapped(msg)
		}()
		broken = false
		again, _ := Message(t.Context(), "id", "key", "{}")
		returnsInTime(t, func() {
			if _, err := wrapped(again); err != nil {
				t.Errorf("the same message after a panic: %v", err)
			}
		})
	})
	run("Concurrent", func(t *testing.T, m middleware.Middleware) {
		wrapped := m.Wrap(func(msg *message.Message) ([]*message.Message, error) {
			return []*message.Message{handlers.NewMessage(msg.Payload)}, nil
		})
		var work sync.WaitGroup
		for i := range 32 {
			work.Go(func() {
				id := string(rune('A' + i))
				msg, s := Message(t.Context(), id, id, id)
				out, err := wrapped(msg)
				if err != nil || len(out) != 1 || string(out[0].Payload) != id {
					t.Errorf("%v, %v", out, err)
				}
				if err := s.Confirm(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	})
	run("WithoutScope", func(t *testing.T, m middleware.Middleware) {
		msg := message.NewMessage("id", []byte("{}"))
		if _, err := m.Wrap(func(*message.Message) ([]*message.Message, error) { return nil, nil })(msg); err != nil {
			t.Error(err)
		}
	})
}

func outputsPass(t *testing.T, m middleware.Middleware) {
	msg, s := Message(t.Context(), "id", "key", "{}")
	want := []*message.Message{handlers.NewMessage([]byte("1")), handlers.NewMessage([]byte("2"))}
	handlers.SetDestination(want[1], "a:b")
	out, err := m.Wrap(func(in *message.Message) ([]*message.Message, error) {
		if in.UUID != msg.UUID || string(in.Payload) != "{}" {
			t.Errorf("the handler got %s %s", in.UUID, in.Payload)
		}
		if handlers.Described(in.Context()) != s.Description() {
			t.Errorf("the handler's message is described as %+v", handlers.Described(in.Context()))
		}
		return want, nil
	})(msg)
	if err != nil || len(out) != len(want) {
		t.Fatalf("%v, %v", out, err)
	}
	for i := range out {
		if !out[i].Equals(want[i]) || handlers.Destination(out[i]) != handlers.Destination(want[i]) {
			t.Errorf("output %d is %+v, the handler's was %+v", i, out[i], want[i])
		}
	}
	if err := s.Confirm(t.Context()); err != nil {
		t.Error(err)
	}
}

func contextIsRestored(t *testing.T, m middleware.Middleware) {
	for name, err := range map[string]error{"success": nil, "an error": errHandler, "an outage": handlers.Unavailable(errHandler)} {
		ctx, cancel := context.WithCancelCause(t.Context())
		msg, _ := Message(ctx, name, "key", name)
		before := msg.Context()
		_, _ = m.Wrap(func(in *message.Message) ([]*message.Message, error) {
			inner := in.Context()
			cancel(transports.ErrVoid)
			<-inner.Done()
			if cause := context.Cause(inner); !errors.Is(cause, transports.ErrVoid) {
				t.Errorf("the handler's context ends with %v, not with the cause of the run's end", cause)
			}
			return nil, err
		})(msg)
		if msg.Context() != before {
			t.Errorf("after %s the message's context isn't the one that it had before", name)
		}
	}
}

// cancelledPasses cancels the run while the handler has the message. Its error must not be
// retried, be recorded as swallowed, or become a success.
func cancelledPasses(t *testing.T, m middleware.Middleware) {
	for name, kind := range map[string]func(error) error{
		"retryable": func(err error) error { return err }, "permanent": handlers.Permanent, "drop": handlers.Drop, "unavailable": handlers.Unavailable,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		msg, s := Message(ctx, "id", "key", name)
		calls := 0
		returnsInTime(t, func() {
			out, err := m.Wrap(func(*message.Message) ([]*message.Message, error) {
				calls++
				cancel(transports.ErrVoid)
				return nil, kind(errHandler)
			})(msg)
			if err == nil {
				t.Errorf("%s: a cancelled run became a success with %v", name, out)
			}
		})
		if calls != 1 {
			t.Errorf("%s: the handler was called %d times", name, calls)
		}
		if len(s.Errors()) != 0 {
			t.Errorf("%s: a cancelled run was swallowed: %v", name, s.Errors())
		}
	}
}

// errorsKeepTheirKind checks that an error passes unchanged, or is recorded as swallowed.
func errorsKeepTheirKind(t *testing.T, m middleware.Middleware) {
	for name, made := range map[string]error{
		"retryable": errHandler, "permanent": handlers.Permanent(errHandler), "drop": handlers.Drop(errHandler),
	} {
		msg, s := Message(t.Context(), name, "key", name)
		_, err := m.Wrap(func(*message.Message) ([]*message.Message, error) { return nil, made })(msg)
		switch swallowed := s.Errors(); {
		case err == nil && len(swallowed) == 0:
			t.Errorf("%s: the error became a success", name)
		case err == nil && handlers.KindOf(swallowed[0]) != handlers.KindOf(made):
			t.Errorf("%s: swallowed as %v", name, handlers.KindOf(swallowed[0]))
		case err != nil && (!errors.Is(err, errHandler) || handlers.KindOf(err) != handlers.KindOf(made)):
			t.Errorf("%s: came out as %v, %v", name, handlers.KindOf(err), err)
		}
	}
}

// nothingLeft waits until only the goroutines in before are left.
func nothingLeft(t *testing.T, before goleak.Option) {
	t.Helper()
	for begun := time.Now(); ; {
		err := goleak.Find(before) // it waits for a moment
		if err == nil {
			return
		}
		if time.Since(begun) > patience {
			t.Errorf("the middleware has goroutines after %v: %v", patience, err)
			return
		}
	}
}

// returnsInTime fails the test if f doesn't return within patience.
func returnsInTime(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		t.Fatalf("waited %v until the middleware returns; the goroutines:\n%s", patience, stacks[:runtime.Stack(stacks, true)])
	}
}
