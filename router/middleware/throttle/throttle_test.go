package throttle

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	stock "github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

func TestDuties(t *testing.T) {
	middlewaretest.Run(t, func(t *testing.T, env middleware.Env) middleware.Middleware {
		m, err := (&Config{Count: 1000, Interval: time.Second, Burst: 10}).New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func nothing(*message.Message) ([]*message.Message, error) { return nil, nil }

func TestRate(t *testing.T) {
	for _, c := range []struct {
		name     string
		config   Config
		messages int
		takes    time.Duration
	}{
		{"one at a time", Config{Count: 10, Interval: time.Second, Burst: 1}, 21, 2 * time.Second},
		{"a burst first", Config{Count: 10, Interval: time.Second, Burst: 11}, 21, time.Second},
		{"slow", Config{Count: 1, Interval: time.Minute, Burst: 1}, 3, 2 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wrapped := middlewaretest.NewHost(t).Build(&c.config).Wrap(nothing)
				begun := time.Now()
				var work sync.WaitGroup
				for range c.messages {
					work.Go(func() {
						msg, _ := middlewaretest.Message(t.Context(), "id", "key", "")
						if _, err := wrapped(msg); err != nil {
							t.Error(err)
						}
					})
				}
				work.Wait()
				if took := time.Since(begun).Round(time.Millisecond); took != c.takes {
					t.Errorf("%d messages took %v, want %v", c.messages, took, c.takes)
				}
			})
		})
	}
}

// A run that is cancelled while it waits ends at once. Watermill's middleware continues to wait.
func TestWaitingEndsWithTheRun(t *testing.T) {
	waited := func(t *testing.T, wrap message.HandlerMiddleware) (took time.Duration, called bool, err error) {
		ctx, cancel := context.WithCancelCause(t.Context())
		wrapped := wrap(func(*message.Message) ([]*message.Message, error) {
			called = true
			return nil, nil
		})
		first, _ := middlewaretest.Message(t.Context(), "1", "key", "")
		_, _ = wrapped(first)
		called = false
		msg, _ := middlewaretest.Message(ctx, "2", "key", "")
		begun := time.Now()
		time.AfterFunc(time.Second, func() { cancel(transports.ErrVoid) })
		_, err = wrapped(msg)
		if err != nil && !handlers.Cancelled(msg.Context()) {
			t.Errorf("not counted as cancelled: %v", err)
		}
		return time.Since(begun), called, err
	}
	synctest.Test(t, func(t *testing.T) {
		if took, called, _ := waited(t, stock.NewThrottle(1, time.Hour).Middleware); took < time.Hour || !called {
			t.Errorf("the stock middleware ended after %v: the hazard is gone", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		m := middlewaretest.NewHost(t).Build(&Config{Count: 1, Interval: time.Hour, Burst: 1})
		if took, called, err := waited(t, m.Wrap); took != time.Second || called || err == nil {
			t.Errorf("ended after %v, handler called: %v, error %v", took, called, err)
		}
	})
}

func TestValidate(t *testing.T) {
	err := (&Config{Count: 0, Interval: 0, Burst: -1}).Validate()
	for _, field := range []string{"count", "interval", "burst"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%v says nothing of %s", err, field)
		}
	}
	if c := defaults; c.Validate() != nil {
		t.Error(c.Validate())
	}
}
