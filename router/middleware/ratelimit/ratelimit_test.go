package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"pgregory.net/rapid"

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
		m, err := with(func(c *Config) { c.Rate = 1000 }).New(env)
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func nothing(*message.Message) ([]*message.Message, error) { return nil, nil }

// Each key has its own limit: the messages of one key take no tokens of others.
func TestKeysAreApart(t *testing.T) {
	for _, c := range []struct {
		name     string
		rate     float64
		burst    int
		messages map[string]int
		takes    map[string]time.Duration
	}{
		{"one at a time", 10, 1, map[string]int{"a": 21, "b": 1, "c": 6}, map[string]time.Duration{"a": 2 * time.Second, "b": 0, "c": 500 * time.Millisecond}},
		{"a burst first", 10, 11, map[string]int{"a": 21, "b": 11}, map[string]time.Duration{"a": time.Second, "b": 0}},
		{"slow", 0.1, 2, map[string]int{"a": 4, "": 3}, map[string]time.Duration{"a": 20 * time.Second, "": 10 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wrapped := middlewaretest.NewHost(t).Build(with(func(config *Config) { config.Rate, config.Burst = c.rate, c.burst })).Wrap(nothing)
				begun := time.Now()
				var all sync.WaitGroup
				for key, n := range c.messages {
					all.Go(func() {
						var work sync.WaitGroup
						for range n {
							work.Go(func() {
								msg, _ := middlewaretest.Message(t.Context(), "id", key, "")
								if _, err := wrapped(msg); err != nil {
									t.Error(err)
								}
							})
						}
						work.Wait()
						if took := time.Since(begun).Round(time.Millisecond); took != c.takes[key] {
							t.Errorf("%d messages of %q took %v, want %v", n, key, took, c.takes[key])
						}
					})
				}
				all.Wait()
			})
		})
	}
}

func TestOver(t *testing.T) {
	for over, kind := range map[string]handlers.Kind{
		"retryable": handlers.KindRetryable, "permanent": handlers.KindPermanent, "drop": handlers.KindDrop,
	} {
		t.Run(over, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				m := middlewaretest.NewHost(t).Build(with(func(c *Config) { c.Rate, c.Burst, c.Over = 0.5, 2, over }))
				wrapped := m.Wrap(func(*message.Message) ([]*message.Message, error) { calls++; return nil, nil })
				send := func(key string) error {
					msg, _ := middlewaretest.Message(t.Context(), "id", key, "")
					_, err := wrapped(msg)
					return err
				}
				if err := errors.Join(send("a"), send("a")); err != nil {
					t.Error(err)
				}
				time.Sleep(500 * time.Millisecond)
				err := send("a")
				if err == nil || handlers.KindOf(err) != kind || err.Error() != `more than 0.5 messages a second of key "a"` || calls != 2 {
					t.Errorf("%v (%v) after %d calls", err, handlers.KindOf(err), calls)
				}
				if d := handlers.RetryAfterOf(err).Round(time.Millisecond); d != 1500*time.Millisecond {
					t.Errorf("asks for %v", d)
				}
				if err := send("b"); err != nil {
					t.Errorf("another key: %v", err)
				}
				time.Sleep(1500*time.Millisecond + 1) // refused messages took no token
				if err := send("a"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestKeySetting(t *testing.T) {
	m := middlewaretest.NewHost(t).Build(with(func(c *Config) { c.Key, c.Rate, c.Burst, c.Over = "payload.tenant", 0.001, 1, "drop" }))
	wrapped := m.Wrap(nothing)
	for i, c := range []struct {
		body string
		ok   bool
	}{
		{`{"tenant":"blue"}`, true}, {`{"tenant":"red"}`, true}, {`{"tenant":"blue"}`, false},
		{`no JSON`, true}, {`{"tenant":{}}`, false}, // what has no key shares a bucket
	} {
		msg, _ := middlewaretest.Message(t.Context(), fmt.Sprint(i), "lane", c.body)
		if _, err := wrapped(msg); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.body, err)
		}
	}
}

func TestWaitingEndsWithTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		called := 0
		wrapped := middlewaretest.NewHost(t).Build(with(func(c *Config) { c.Rate, c.Burst = 0.001, 1 })).Wrap(func(*message.Message) ([]*message.Message, error) {
			called++
			return nil, nil
		})
		first, _ := middlewaretest.Message(t.Context(), "1", "key", "")
		_, _ = wrapped(first)
		ctx, cancel := context.WithCancelCause(t.Context())
		msg, _ := middlewaretest.Message(ctx, "2", "key", "")
		time.AfterFunc(time.Second, func() { cancel(transports.ErrVoid) })
		begun := time.Now()
		_, err := wrapped(msg)
		if took := time.Since(begun); took != time.Second || called != 1 || err == nil || !handlers.Cancelled(msg.Context()) {
			t.Errorf("ended after %v and %d calls: %v", took, called, err)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuckets(&Config{Rate: 1, Burst: 10, MaxKeys: 100})
		for i := range 1000 {
			if !b.bucketOf(fmt.Sprint(i), time.Now()).Allow() {
				t.Fatalf("key %d came to an empty bucket", i)
			}
		}
		if len(b.byKey) != 100 || b.used.Len() != 100 {
			t.Errorf("%d and %d keys are remembered", len(b.byKey), b.used.Len())
		}
		b.bucketOf("999", time.Now()).AllowN(time.Now(), 9)
		if b.bucketOf("999", time.Now()).Allow() {
			t.Error("a key in use was forgotten")
		}
		// Full buckets are removed when others are used: two for each use.
		time.Sleep(10 * time.Second)
		for i := range 50 {
			b.bucketOf(fmt.Sprint("new", i), time.Now()).Allow()
		}
		if len(b.byKey) > 51 {
			t.Errorf("%d keys are remembered after a lull", len(b.byKey))
		}
	})
}

// Whatever arrives and whatever is forgotten, each key passes as many messages as with its own
// bucket that is never forgotten.
func TestForgettingChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.SampledFrom([]float64{0.25, 1, 8}).Draw(t, "rate")
		burst := rapid.IntRange(1, 4).Draw(t, "burst")
		b := newBuckets(&Config{Rate: rate, Burst: burst, MaxKeys: 8})
		type level struct {
			tokens float64
			at     time.Time
		}
		model := map[string]*level{}
		now := time.Unix(1_000_000, 0)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 125, 1000, 4000, 20000}).Draw(t, "pause")) * time.Millisecond)
			key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")
			m := model[key]
			if m == nil {
				m = &level{float64(burst), now}
				model[key] = m
			}
			m.tokens, m.at = min(float64(burst), m.tokens+now.Sub(m.at).Seconds()*rate), now
			want := m.tokens >= 1
			if want {
				m.tokens--
			}
			if got := b.bucketOf(key, now).AllowN(now, 1); got != want {
				t.Fatalf("key %s: %v, a bucket of its own gives %v", key, got, want)
			}
			if len(b.byKey) != b.used.Len() || len(b.byKey) > 4 {
				t.Fatalf("%d keys, %d in the order of use", len(b.byKey), b.used.Len())
			}
		}
	})
}

func TestValidate(t *testing.T) {
	for _, rate := range []float64{0, -1, math.NaN(), math.Inf(1), 0.0001} {
		err := (&Config{Rate: rate, Key: "tenant", Over: "poison"}).Validate()
		for _, field := range []string{"rate", "burst", "key", "over", "max_keys"} {
			if err == nil || !strings.Contains(err.Error(), field+": ") {
				t.Errorf("%v says nothing of %s", err, field)
			}
		}
	}
	if c := defaults; c.Validate() != nil {
		t.Error(c.Validate())
	}
}
