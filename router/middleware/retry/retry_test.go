package retry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	stock "github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

var steady = Config{MaxRetries: 5, InitialInterval: 100 * time.Millisecond, MaxInterval: 500 * time.Millisecond, Multiplier: 2}

func TestDuties(t *testing.T) {
	middlewaretest.Run(t, func(t *testing.T, env middleware.Env) middleware.Middleware {
		c := Config{MaxRetries: 2, InitialInterval: time.Millisecond, MaxInterval: time.Millisecond, Multiplier: 1}
		m, err := c.New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

// failing is a handler that records when it was called. It fails with the error that errs returns
// for the number of the call, from 1.
type failing struct {
	begun time.Time
	calls []time.Duration
	errs  func(call int) error
}

func (f *failing) handle(msg *message.Message) ([]*message.Message, error) {
	if f.begun.IsZero() {
		f.begun = time.Now()
	}
	f.calls = append(f.calls, time.Since(f.begun))
	if err := f.errs(len(f.calls)); err != nil {
		return nil, err
	}
	return []*message.Message{handlers.NewMessage(msg.Payload)}, nil
}

func always(call int) error { return fmt.Errorf("attempt %d", call) }

func milliseconds(ms ...int) []time.Duration {
	var all []time.Duration
	for _, n := range ms {
		all = append(all, time.Duration(n)*time.Millisecond)
	}
	return all
}

func TestPausesGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing{errs: always}
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
		_, err := middlewaretest.NewHost(t).Build(&steady).Wrap(f.handle)(msg)
		if diff := cmp.Diff(milliseconds(0, 100, 300, 700, 1200, 1700), f.calls); diff != "" {
			t.Error(diff)
		}
		if err == nil || err.Error() != "attempt 6" {
			t.Errorf("error %v, want the last one", err)
		}
		var counted interface{ Attempts() int }
		if !errors.As(err, &counted) || counted.Attempts() != 6 {
			t.Errorf("%v doesn't tell of 6 attempts", err)
		}
	})
}

// Watermill's middleware advances its backoff in ShouldRetry and OnRetryHook, which it needs to
// distinguish kinds of errors.
func TestAskingCostsNoTime(t *testing.T) {
	took := func(t *testing.T, wrap func(f *failing) message.HandlerFunc) time.Duration {
		f := failing{errs: always}
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
		_, _ = wrap(&f)(msg)
		return f.calls[len(f.calls)-1]
	}
	synctest.Test(t, func(t *testing.T) {
		s := stock.Retry{
			MaxRetries: steady.MaxRetries, InitialInterval: steady.InitialInterval, MaxInterval: time.Hour, Multiplier: steady.Multiplier,
			ShouldRetry: func(p stock.RetryParams) bool { return handlers.KindOf(p.Err) == handlers.KindRetryable },
			OnRetryHook: func(int, time.Duration) {},
		}
		if d := took(t, func(f *failing) message.HandlerFunc { return s.Middleware(f.handle) }); d < 10*time.Second {
			t.Errorf("the stock middleware took %v: the hazard is gone", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := steady
		c.MaxInterval = time.Hour
		m := middlewaretest.NewHost(t).Build(&c)
		if d := took(t, func(f *failing) message.HandlerFunc { return m.Wrap(f.handle) }); d != 3100*time.Millisecond {
			t.Errorf("took %v", d)
		}
	})
}

func TestAnErrorMayAskForALongerPause(t *testing.T) {
	for _, c := range []struct {
		name  string
		asks  time.Duration
		limit time.Duration
		want  []time.Duration
	}{
		{"longer than the pause", 250 * time.Millisecond, time.Second, milliseconds(0, 250, 500, 900)},
		{"longer than max_interval", 700 * time.Millisecond, time.Second, milliseconds(0, 700, 1400, 2100)},
		{"longer than it may", time.Hour, time.Second, milliseconds(0, 1000, 2000, 3000)},
		{"no notice is taken", time.Hour, 0, milliseconds(0, 100, 300, 700)},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := steady
				config.MaxRetries, config.MaxRetryAfter = 3, c.limit
				f := failing{errs: func(call int) error { return handlers.RetryAfter(always(call), c.asks) }}
				msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
				_, _ = middlewaretest.NewHost(t).Build(&config).Wrap(f.handle)(msg)
				if diff := cmp.Diff(c.want, f.calls); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestSuccessEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing{errs: func(call int) error {
			if call < 3 {
				return errors.New("not yet")
			}
			return nil
		}}
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
		out, err := middlewaretest.NewHost(t).Build(&steady).Wrap(f.handle)(msg)
		if err != nil || len(out) != 1 || len(f.calls) != 3 {
			t.Errorf("%v, %v after %d calls", out, err, len(f.calls))
		}
	})
}

func TestOtherKindsEndIt(t *testing.T) {
	for _, kind := range []func(error) error{handlers.Permanent, handlers.Drop, handlers.Unavailable} {
		for first := range 2 {
			synctest.Test(t, func(t *testing.T) {
				want := kind(errors.New("the end"))
				f := failing{errs: func(call int) error {
					if call > first {
						return want
					}
					return errors.New("not yet")
				}}
				msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
				_, err := middlewaretest.NewHost(t).Build(&steady).Wrap(f.handle)(msg)
				if !errors.Is(err, want) || handlers.KindOf(err) != handlers.KindOf(want) || len(f.calls) != first+1 {
					t.Errorf("%v (%v) after %d calls", err, handlers.KindOf(err), len(f.calls))
				}
			})
		}
	}
}

func TestNoRetries(t *testing.T) {
	c := steady
	c.MaxRetries = 0
	f := failing{errs: always}
	msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
	if _, err := middlewaretest.NewHost(t).Build(&c).Wrap(f.handle)(msg); err == nil || len(f.calls) != 1 {
		t.Errorf("%v after %d calls", err, len(f.calls))
	}
}

func TestAPauseEndsWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		f := failing{errs: always}
		msg, _ := middlewaretest.Message(ctx, "id", "key", "x")
		time.AfterFunc(350*time.Millisecond, func() { cancel(transports.ErrVoid) })
		begun := time.Now()
		_, err := middlewaretest.NewHost(t).Build(&steady).Wrap(f.handle)(msg)
		if took := time.Since(begun); took != 350*time.Millisecond || len(f.calls) != 3 {
			t.Errorf("ended after %v and %d calls", took, len(f.calls))
		}
		if err == nil || err.Error() != "attempt 3" {
			t.Errorf("error %v, want the handler's last one", err)
		}
	})
}

// Each attempt gets the message's first context, whatever the attempt before has set.
func TestEveryAttemptHasAFreshContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
		calls := 0
		_, err := middlewaretest.NewHost(t).Build(&steady).Wrap(func(msg *message.Message) ([]*message.Message, error) {
			if calls++; msg.Context().Err() != nil {
				t.Errorf("attempt %d has an ended context", calls)
			}
			ctx, cancel := context.WithCancel(msg.Context())
			cancel()
			msg.SetContext(ctx)
			return nil, errors.New("again")
		})(msg)
		if err == nil || calls != 6 || msg.Context().Err() != nil {
			t.Errorf("%v after %d calls, the message's context: %v", err, calls, msg.Context().Err())
		}
	})
}

func TestJitter(t *testing.T) {
	c := steady
	c.MaxRetries, c.Jitter = 1, 0.5
	m := middlewaretest.NewHost(t).Build(&c)
	seen := map[time.Duration]bool{}
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			f := failing{errs: always}
			msg, _ := middlewaretest.Message(t.Context(), "id", "key", "x")
			_, _ = m.Wrap(f.handle)(msg)
			pause := f.calls[1]
			if pause < 50*time.Millisecond || pause > 151*time.Millisecond {
				t.Errorf("a pause of %v", pause)
			}
			seen[pause] = true
		})
	}
	if len(seen) < 10 {
		t.Errorf("%d different pauses of 50", len(seen))
	}
}

func TestValidate(t *testing.T) {
	err := (&Config{MaxRetries: -1, InitialInterval: 0, MaxInterval: -1, Multiplier: math.NaN(), Jitter: 2, MaxRetryAfter: -1}).Validate()
	for _, field := range []string{"max_retries", "initial_interval", "max_interval", "multiplier", "jitter", "max_retry_after"} {
		if err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%v says nothing of %s", err, field)
		}
	}
	if c := defaults; c.Validate() != nil {
		t.Error(c.Validate())
	}
}
