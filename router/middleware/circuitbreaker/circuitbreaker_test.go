package circuitbreaker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
	"github.com/pentrough/pentrough/transports"
)

// with returns the defaults, changed by f.
func with(f func(*Config)) *Config {
	c := defaults
	f(&c)
	return &c
}

func TestDuties(t *testing.T) {
	middlewaretest.Run(t, func(t *testing.T, env middleware.Env) middleware.Middleware {
		m, err := with(func(*Config) {}).New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

// The body of a message says how it ends.
var ends = map[string]func(context.CancelCauseFunc) error{
	"works":       func(context.CancelCauseFunc) error { return nil },
	"retryable":   func(context.CancelCauseFunc) error { return errors.New("not now") },
	"permanent":   func(context.CancelCauseFunc) error { return handlers.Permanent(errors.New("never")) },
	"drop":        func(context.CancelCauseFunc) error { return handlers.Drop(errors.New("done")) },
	"unavailable": func(context.CancelCauseFunc) error { return handlers.Unavailable(errors.New("down")) },
	"cancelled": func(cancel context.CancelCauseFunc) error {
		cancel(transports.ErrVoid)
		return errors.New("interrupted")
	},
	"panic": func(context.CancelCauseFunc) error { panic("the handler's") },
}

// world is a breaker around a handler that ends each message as its body says.
type world struct {
	t       *testing.T
	wrapped message.HandlerFunc
	cancel  context.CancelCauseFunc
}

func newWorld(t *testing.T, c *Config) *world {
	w := &world{t: t}
	w.wrapped = middlewaretest.NewHost(t).Build(c).Wrap(func(msg *message.Message) ([]*message.Message, error) {
		return nil, ends[string(msg.Payload)](w.cancel)
	})
	return w
}

// send sends a message of key and reports whether it was tried.
func (w *world) send(key, end string) (tried bool, err error) {
	ctx, cancel := context.WithCancelCause(w.t.Context())
	defer cancel(nil)
	w.cancel = cancel
	msg, _ := middlewaretest.Message(ctx, "id", key, end)
	defer func() {
		if recover() != nil {
			tried, err = true, nil
		}
	}()
	_, err = w.wrapped(msg)
	return err == nil || !strings.HasPrefix(err.Error(), "not tried: "), err
}

func TestWhatOpensIt(t *testing.T) {
	both := []string{"retryable", "unavailable"}
	for _, c := range []struct {
		name   string
		counts []string
		sent   string
		open   bool
	}{
		{"two failures", nil, "retryable retryable", false},
		{"three failures", nil, "retryable retryable retryable", true},
		{"not in a row", nil, "retryable retryable works retryable retryable", false},
		{"an answer is a sign of life", nil, "retryable retryable permanent retryable retryable", false},
		{"so is a message that is done", nil, "retryable retryable drop retryable retryable", false},
		{"an outage tells nothing", nil, "retryable retryable unavailable retryable", true},
		{"outages don't open it", nil, "unavailable unavailable unavailable unavailable", false},
		{"unless they count", both, "unavailable retryable unavailable", true},
		{"only outages", []string{"unavailable"}, "retryable unavailable unavailable retryable unavailable", true},
		{"a cancelled run tells nothing", nil, "retryable cancelled retryable cancelled retryable", true},
		{"cancelled runs don't open it", nil, "cancelled cancelled cancelled cancelled", false},
		{"panics", nil, "panic panic panic", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, with(func(config *Config) {
				config.Failures = 3
				if c.counts != nil {
					config.Counts = c.counts
				}
			}))
			for end := range strings.FieldsSeq(c.sent) {
				if tried, err := w.send("a", end); !tried {
					t.Errorf("%s was not tried: %v", end, err)
				}
			}
			tried, err := w.send("a", "works")
			if tried == c.open {
				t.Errorf("open: %v, want %v (%v)", !tried, c.open, err)
			}
			if tried, err := w.send("b", "works"); !tried || err != nil {
				t.Errorf("another key: %v", err)
			}
		})
	}
}

func TestTheWayOfABreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, with(func(c *Config) { c.Failures, c.Open = 2, 10*time.Second }))
		step := func(after time.Duration, end string, tried bool, asks time.Duration) {
			t.Helper()
			time.Sleep(after)
			got, err := w.send("a", end)
			if got != tried {
				t.Errorf("tried: %v, want %v: %v", got, tried, err)
			}
			if !got && (handlers.KindOf(err) != handlers.KindRetryable || handlers.RetryAfterOf(err) != asks) {
				t.Errorf("given up with %v, %v, asking for %v, want %v", err, handlers.KindOf(err), handlers.RetryAfterOf(err), asks)
			}
		}
		step(0, "retryable", true, 0)
		step(time.Hour, "retryable", true, 0) // in a row, however long that takes
		step(0, "works", false, 10*time.Second)
		step(9*time.Second, "works", false, time.Second)
		step(time.Second, "retryable", true, 0) // the probe fails
		step(time.Second, "works", false, 9*time.Second)
		step(9*time.Second, "cancelled", true, 0) // the probe tells nothing: the next is one
		step(0, "unavailable", true, 0)
		step(0, "permanent", true, 0) // an answer
		step(0, "retryable", true, 0) // counted from the beginning
		step(0, "works", true, 0)
	})
}

// While a probe runs, other messages are refused. A run that began before doesn't change the
// result of the probe.
func TestOneProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results := map[string]chan error{"early": make(chan error), "probe": make(chan error)}
		wrapped := middlewaretest.NewHost(t).Build(with(func(c *Config) { c.Failures, c.Open = 1, time.Second })).Wrap(func(msg *message.Message) ([]*message.Message, error) {
			if c, ok := results[string(msg.Payload)]; ok {
				return nil, <-c
			}
			return nil, errors.New("fails")
		})
		begin := func(body string) chan error {
			ended := make(chan error, 1)
			msg, _ := middlewaretest.Message(t.Context(), body, "a", body)
			go func() {
				_, err := wrapped(msg)
				ended <- err
			}()
			synctest.Wait()
			return ended
		}
		early := begin("early")
		if err := <-begin("other"); err == nil || err.Error() != "fails" {
			t.Fatal(err)
		}
		results["early"] <- nil // it began before the breaker was opened
		if err := <-early; err != nil {
			t.Error(err)
		}
		if err := <-begin("other"); handlers.RetryAfterOf(err) != time.Second {
			t.Errorf("a late success closed it: %v", err)
		}
		time.Sleep(time.Second)
		probe := begin("probe")
		if err := <-begin("other"); err == nil || !strings.Contains(err.Error(), "is open") {
			t.Errorf("beside the probe: %v", err)
		}
		results["probe"] <- nil
		if err := <-probe; err != nil {
			t.Error(err)
		}
		if err := <-begin("other"); err == nil || err.Error() != "fails" {
			t.Errorf("after the probe: %v", err)
		}
	})
}

func TestKeySetting(t *testing.T) {
	w := newWorld(t, with(func(c *Config) { c.Key, c.Failures = "metadata.tenant", 1 }))
	send := func(tenant string) error {
		msg, _ := middlewaretest.Message(t.Context(), "id", "the lane's", "retryable")
		if tenant != "" {
			msg.Metadata["tenant"] = tenant
		}
		_, err := w.wrapped(msg)
		return err
	}
	for _, tenant := range []string{"blue", "red", ""} {
		if err := send(tenant); err.Error() != "not now" {
			t.Errorf("%q: %v", tenant, err)
		}
		if err := send(tenant); err.Error() != fmt.Sprintf("not tried: the circuit breaker of key %q is open", tenant) {
			t.Errorf("%q: %v", tenant, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := middlewaretest.NewHost(t).Env()
		registry := prometheus.NewRegistry()
		env.Registerer = registry
		m, err := with(func(c *Config) { c.Failures, c.Open, c.MaxKeys = 1, time.Second, 2 }).New(env)
		if err != nil {
			t.Fatal(err)
		}
		w := &world{t: t, wrapped: m.Wrap(func(msg *message.Message) ([]*message.Message, error) { return nil, ends[string(msg.Payload)](nil) })}
		check := func(open, opened, refused float64) {
			t.Helper()
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, f := range families {
				m := f.GetMetric()[0]
				got[strings.TrimPrefix(f.GetName(), "pentrough_circuit_breaker_")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
			if diff := cmp.Diff(map[string]float64{"open": open, "opened_total": opened, "refused_total": refused}, got); diff != "" {
				t.Error(diff)
			}
		}
		check(0, 0, 0)
		w.send("a", "retryable")
		w.send("b", "retryable")
		w.send("b", "retryable")
		check(2, 2, 1)
		w.send("c", "retryable") // a is forgotten
		check(2, 3, 1)
		if tried, _ := w.send("a", "works"); !tried {
			t.Error("more keys are remembered than may be")
		}
		time.Sleep(time.Second)
		w.send("b", "works")
		check(1, 3, 1)
	})
}

func TestValidate(t *testing.T) {
	for _, counts := range [][]string{nil, {"retryable", "permanent"}} {
		err := (&Config{Counts: slices.Clone(counts), Key: "tenant"}).Validate()
		for _, field := range []string{"failures", "open", "counts", "key", "max_keys"} {
			if err == nil || !strings.Contains(err.Error(), field+": ") {
				t.Errorf("%v says nothing of %s", err, field)
			}
		}
	}
	if c := defaults; c.Validate() != nil {
		t.Error(c.Validate())
	}
}
