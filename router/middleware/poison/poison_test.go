package poison

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	stock "github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

const to = "broker:poison"

var errHandler = errors.New("the handler's error")

func TestDuties(t *testing.T) {
	middlewaretest.Run(t, func(t *testing.T, env middleware.Env) middleware.Middleware {
		m, err := (&Config{To: to}).New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func fails(err error) message.HandlerFunc {
	return func(*message.Message) ([]*message.Message, error) { return nil, err }
}

func TestWhatIsPoisoned(t *testing.T) {
	for name, c := range map[string]struct {
		err      error
		poisoned bool
	}{
		"retryable":   {errHandler, true},
		"permanent":   {handlers.Permanent(errHandler), true},
		"drop":        {handlers.Drop(errHandler), false},
		"unavailable": {handlers.Unavailable(errHandler), false},
		"success":     {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := middlewaretest.NewHost(t)
			msg, s := middlewaretest.Message(t.Context(), "id", "key", "x")
			_, err := h.Build(&Config{To: to}).Wrap(fails(c.err))(msg)
			if c.poisoned != (len(h.Published(to)) == 1) {
				t.Errorf("published %v", h.Published(to))
			}
			if c.poisoned {
				if err != nil || len(s.Errors()) != 1 || !errors.Is(s.Errors()[0], errHandler) {
					t.Errorf("returned %v, swallowed %v", err, s.Errors())
				}
			} else if !errors.Is(err, c.err) || len(s.Errors()) != 0 {
				t.Errorf("returned %v, swallowed %v", err, s.Errors())
			}
		})
	}
}

// The log names a message by its id or its UUID.
func TestTheLog(t *testing.T) {
	for id, want := range map[string]string{
		"":    `msg="message poisoned" uuid=u-1 to=broker:poison`,
		"i-1": `msg="message poisoned" id=i-1 uuid=u-1 to=broker:poison`,
	} {
		h := middlewaretest.NewHost(t)
		var log bytes.Buffer
		env := h.Env()
		env.Logger = slog.New(slog.NewTextHandler(&log, nil))
		m, err := (&Config{To: to}).New(env)
		if err != nil {
			t.Fatal(err)
		}
		msg, _ := middlewaretest.Message(t.Context(), id, "key", "x")
		msg.UUID = "u-1"
		if _, err := m.Wrap(fails(errHandler))(msg); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(log.String(), want) {
			t.Errorf("with the id %q: %s", id, &log)
		}
	}
}

// counted is an error with the number of attempts, as those of retry.
type counted struct{ error }

func (counted) Attempts() int { return 6 }

func TestAPoisonedMessageIsAsItCame(t *testing.T) {
	h := middlewaretest.NewHost(t)
	body := "\x00\xffnot JSON"
	msg, _ := middlewaretest.Message(t.Context(), "id", "key", body)
	msg.Metadata = message.Metadata{
		transports.MessageID: "id", transports.CorrelationID: "c", transports.ReplyTo: "r", transports.Priority: "5", "header.Mixed": "kept",
		transports.Redelivered: "true", transports.Expiration: "1000", "source.exchange": "device.commands", "source.routing_key": "a.b",
		"header.x-death": "gone", "header.x-b3-traceid": "t", "header.poison.cause": "an earlier one", "header.poison.attempts": "9",
	}
	_, err := h.Build(&Config{To: to}).Wrap(func(msg *message.Message) ([]*message.Message, error) {
		msg.Payload = []byte("changed")
		return nil, handlers.Permanent(counted{fmt.Errorf("reading it: %w", errHandler)})
	})(msg)
	if err != nil {
		t.Fatal(err)
	}
	out := h.Published(to)[0]
	if string(out.Payload) != body || out.UUID != "id" {
		t.Errorf("published %q %q", out.UUID, out.Payload)
	}
	want := message.Metadata{
		transports.MessageID: "id", transports.CorrelationID: "c", transports.ReplyTo: "r", transports.Priority: "5", "header.Mixed": "kept", "header.x-b3-traceid": "t",
		"poison.cause": "reading it: the handler's error", "poison.kind": "permanent", "poison.pipeline": "test",
		"poison.from": "source:topic", "poison.handler": "handler", "poison.time": handlertest.Start.Format(time.RFC3339Nano),
		"poison.exchange": "device.commands", "poison.routing_key": "a.b", "poison.expiration": "1000", "poison.attempts": "6",
	}
	if diff := cmp.Diff(want, out.Metadata); diff != "" {
		t.Error(diff)
	}
}

func TestAMessageThatNothingTriesAgainHadOneAttempt(t *testing.T) {
	h := middlewaretest.NewHost(t)
	msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
	if _, err := h.Build(&Config{To: to}).Wrap(fails(errHandler))(msg); err != nil {
		t.Fatal(err)
	}
	if got := h.Published(to)[0].Metadata["poison.attempts"]; got != "1" {
		t.Errorf("poison.attempts is %q", got)
	}
}

func TestALongCauseIsClipped(t *testing.T) {
	h := middlewaretest.NewHost(t)
	msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
	if _, err := h.Build(&Config{To: to}).Wrap(fails(errors.New("x\xff" + strings.Repeat("ü", 100_000))))(msg); err != nil {
		t.Fatal(err)
	}
	if cause := h.Published(to)[0].Metadata["poison.cause"]; len(cause) > maxCause+3 || !utf8.ValidString(cause) || !strings.HasSuffix(cause, "ü...") {
		t.Errorf("%d bytes, ending in %q", len(cause), cause[len(cause)-8:])
	}
}

// A message whose context has ended is published all the same. Watermill's middleware publishes it
// with that context, which always fails.
func TestATimedOutMessageIsPoisoned(t *testing.T) {
	expired := func(t *testing.T, wrap message.HandlerMiddleware) error {
		msg, s := middlewaretest.Message(t.Context(), "id", "key", "x")
		ctx, cancel := context.WithTimeout(s.Base(), time.Second)
		defer cancel()
		msg.SetContext(ctx)
		_, err := wrap(func(msg *message.Message) ([]*message.Message, error) {
			<-msg.Context().Done()
			return nil, msg.Context().Err()
		})(msg)
		return err
	}
	synctest.Test(t, func(t *testing.T) {
		h := middlewaretest.NewHost(t)
		pub, err := h.Env().Publisher(to)
		if err != nil {
			t.Fatal(err)
		}
		s, err := stock.PoisonQueue(pub, "poison")
		if err != nil {
			t.Fatal(err)
		}
		if err := expired(t, s); err == nil || len(h.Published(to)) != 0 {
			t.Error("the stock middleware poisons a message whose time is over: the hazard is gone")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		h := middlewaretest.NewHost(t)
		if err := expired(t, h.Build(&Config{To: to}).Wrap); err != nil || len(h.Published(to)) != 1 {
			t.Errorf("%v, published %v", err, h.Published(to))
		}
	})
}

// A publish that blocks ends with the run, and the message stays unsettled.
func TestPublishingEndsWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := middlewaretest.NewHost(t)
		h.Publish(func(_ middleware.TopicRef, msg *message.Message) error {
			<-msg.Context().Done()
			return context.Cause(msg.Context())
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		msg, s := middlewaretest.Message(ctx, "id", "key", "x")
		time.AfterFunc(time.Hour, func() { cancel(transports.ErrVoid) })
		begun := time.Now()
		_, err := h.Build(&Config{To: to}).Wrap(fails(errHandler))(msg)
		if took := time.Since(begun); took != time.Hour {
			t.Errorf("ended after %v", took)
		}
		if !errors.Is(err, transports.ErrVoid) || len(s.Errors()) != 0 {
			t.Errorf("returned %v, swallowed %v", err, s.Errors())
		}
	})
}

func TestAMessageThatCannotBePoisonedIsKept(t *testing.T) {
	h := middlewaretest.NewHost(t)
	h.Publish(func(middleware.TopicRef, *message.Message) error { return transports.ErrClosed })
	msg, s := middlewaretest.Message(t.Context(), "id", "key", "x")
	_, err := h.Build(&Config{To: to}).Wrap(fails(handlers.Permanent(errHandler)))(msg)
	if handlers.KindOf(err) != handlers.KindUnavailable || !errors.Is(err, transports.ErrClosed) || len(s.Errors()) != 0 {
		t.Errorf("returned %v, swallowed %v", err, s.Errors())
	}
}

type contextKey struct{}

// The publisher also gets the values of the context, such as typed headers.
func TestContextValuesGoAlong(t *testing.T) {
	h := middlewaretest.NewHost(t)
	msg, _ := middlewaretest.Message(context.WithValue(t.Context(), contextKey{}, "typed"), "id", "key", "x")
	if _, err := h.Build(&Config{To: to}).Wrap(fails(errHandler))(msg); err != nil {
		t.Fatal(err)
	}
	if v := h.Published(to)[0].Context().Value(contextKey{}); v != "typed" {
		t.Errorf("the context's value is %v", v)
	}
}

func TestValidate(t *testing.T) {
	if err := (&Config{}).Validate(); err == nil || !strings.HasPrefix(err.Error(), "to: ") {
		t.Error(err)
	}
	if err := (&Config{To: to}).Validate(); err != nil {
		t.Error(err)
	}
}
