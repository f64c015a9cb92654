package handlertest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// patience is how long a test waits for a handler that has to end soon. It is long, because the
// machine may be busy.
const patience = 2 * time.Minute

// Run is the conformance suite of handlers. A handler must not change its input, must describe a
// message the same way each time, be safe for concurrent use, return soon after its context has
// ended, survive junk, and leave no goroutine behind. build returns a new handler. examples are
// messages that it handles without an error.
func Run(t *testing.T, build func(t *testing.T) handlers.Handler, examples ...*message.Message) {
	if len(examples) == 0 {
		t.Fatal("handlertest.Run needs examples of messages")
	}
	run := func(name string, f func(t *testing.T, h handlers.Handler)) {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			h := build(t)
			f(t, h)
			if c, ok := h.(io.Closer); ok {
				if err := c.Close(); err != nil {
					t.Errorf("closing the handler: %v", err)
				}
			}
			checkNoGoroutines(t, before)
		})
	}
	run("Examples", func(t *testing.T, h handlers.Handler) {
		for _, msg := range examples {
			out, err := Handle(t.Context(), h, msg.Copy())
			if err != nil {
				t.Errorf("handling %s: %v", msg.Payload, err)
			}
			checkOutputs(t, msg, out)
		}
	})
	run("InputUnchanged", func(t *testing.T, h handlers.Handler) {
		for _, msg := range examples {
			input := msg.Copy()
			input.Payload = append(message.Payload(nil), msg.Payload...)
			if _, err := Handle(t.Context(), h, input); err != nil {
				t.Errorf("handling %s: %v", msg.Payload, err)
			}
			checkUnchanged(t, msg, input)
			if r, ok := h.(handlers.Refuser); ok {
				checkRefusals(t, h, r, input)
				checkUnchanged(t, msg, input)
			}
		}
	})
	run("DescribedTheSameWay", func(t *testing.T, h handlers.Handler) {
		for _, msg := range examples {
			first, err := Describe(h, msg.Copy())
			if err != nil {
				t.Errorf("describing %s: %v", msg.Payload, err)
			}
			second, _ := Describe(h, msg.Copy())
			if first.Key != second.Key || first.ID != second.ID {
				t.Errorf("%s described as %q %q, then as %q %q", msg.Payload, first.Key, first.ID, second.Key, second.ID)
			}
		}
	})
	run("WithoutScope", func(t *testing.T, h handlers.Handler) {
		for _, msg := range examples {
			if _, err := h.Handle(msg.Copy()); err != nil {
				t.Errorf("handling %s: %v", msg.Payload, err)
			}
		}
	})
	run("Concurrent", func(t *testing.T, h handlers.Handler) {
		var work sync.WaitGroup
		for range 8 {
			for _, msg := range examples {
				input := msg.Copy()
				work.Go(func() {
					if _, err := Handle(t.Context(), h, input); err != nil {
						t.Errorf("handling %s: %v", input.Payload, err)
					}
				})
			}
		}
		work.Wait()
	})
	run("ContextEnded", func(t *testing.T, h handlers.Handler) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(transports.ErrVoid)
		for _, msg := range examples {
			ended := make(chan error, 1)
			go func() {
				_, err := Handle(ctx, h, msg.Copy())
				ended <- err
			}()
			select {
			case err := <-ended:
				if handlers.KindOf(err) == handlers.KindDrop {
					t.Errorf("%s is dropped when its context has ended: %v", msg.Payload, err)
				}
			case <-time.After(patience):
				t.Fatalf("waited %v for the end of handling %s, whose context has ended; the goroutines:\n%s", patience, msg.Payload, allStacks())
			}
		}
	})
	run("Junk", func(t *testing.T, h handlers.Handler) {
		for _, body := range Junk() {
			msg := handlers.NewMessage([]byte(body))
			out, err := Handle(t.Context(), h, msg)
			if handlers.KindOf(err) == handlers.KindUnavailable {
				t.Errorf("%.80q has an error of kind unavailable: %v", body, err)
			}
			if err == nil {
				checkOutputs(t, msg, out)
			}
		}
	})
	probe := build(t)
	if c, ok := probe.(io.Closer); ok {
		if err := c.Close(); err != nil {
			t.Errorf("closing the handler: %v", err)
		}
	}
	if _, ok := probe.(handlers.BatchHandler); ok {
		run("Batch", func(t *testing.T, h handlers.Handler) {
			msgs := make([]*message.Message, len(examples))
			for i, msg := range examples {
				msgs[i] = msg.Copy()
			}
			outcomes := h.(handlers.BatchHandler).HandleBatch(t.Context(), msgs)
			if len(outcomes) != len(msgs) {
				t.Fatalf("%d outcomes for %d messages", len(outcomes), len(msgs))
			}
			for i, o := range outcomes {
				if o.Err != nil {
					t.Errorf("handling %s: %v", msgs[i].Payload, o.Err)
				}
				checkOutputs(t, msgs[i], o.Messages)
			}
		})
	}
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
			t.Errorf("waited %v until the goroutines of the handler ended: %v", patience, err)
			return
		}
	}
}

func allStacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// Junk returns bodies that aren't valid input for a handler of JSON.
func Junk() []string {
	return []string{
		"", " ", "\x00", "\xff\xfe", "open", "{", "[]", "null", "1e999", `"`, `{"a":1}{"a":2}`, `{"a":1,"a":2}`, "{\"a\":\"\xff\"}", `{"id":1,"device":[],"cmd":{}}`,
		strings.Repeat("[", 100_000), strings.Repeat(`{"a":`, 100_000), strings.Repeat("x", 2<<20),
	}
}

func describeByMetadata(msg *message.Message) handlers.Description {
	return handlers.Description{Key: msg.Metadata[transports.Device], ID: msg.Metadata[transports.MessageID]}
}

func checkRefusals(t *testing.T, h handlers.Handler, r handlers.Refuser, msg *message.Message) {
	t.Helper()
	for _, reason := range []handlers.Reason{handlers.ReasonStalled, handlers.ReasonAckDeadline, handlers.ReasonIDReused} {
		s := Begin(t.Context(), h, msg)
		out, err := r.Refuse(s.Base(), msg, reason)
		if err != nil {
			t.Errorf("refusing %s: %v", msg.Payload, err)
		}
		checkOutputs(t, msg, out)
	}
}

func checkUnchanged(t *testing.T, want, got *message.Message) {
	t.Helper()
	if diff := cmp.Diff(string(want.Payload), string(got.Payload)); diff != "" {
		t.Errorf("the input's payload changed: %s", diff)
	}
	if !maps.Equal(want.Metadata, got.Metadata) || want.UUID != got.UUID {
		t.Errorf("the input's metadata changed: %s", cmp.Diff(want.Metadata, got.Metadata))
	}
	select {
	case <-got.Acked():
		t.Error("the handler acked its input")
	case <-got.Nacked():
		t.Error("the handler nacked its input")
	default:
	}
}

func checkOutputs(t *testing.T, in *message.Message, out []*message.Message) {
	t.Helper()
	seen := map[*message.Message]bool{in: true}
	for _, msg := range out {
		switch {
		case msg == nil:
			t.Fatal("a produced message is nil")
		case seen[msg]:
			t.Error("the input was produced, or one message twice")
		case msg.UUID == "":
			t.Error("a produced message without a UUID")
		}
		seen[msg] = true
	}
}

// Logger returns a logger that writes to the test's log. It drops lines after the end of the test.
func Logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t == nil {
		return 0, errors.New("the test has ended")
	}
	w.t.Helper()
	w.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (w *testWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
