package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPausesDoubleUpToTheLongest(t *testing.T) {
	for _, c := range []struct{ first, longest, begin time.Duration }{
		{100 * time.Millisecond, 5 * time.Second, 100 * time.Millisecond},
		{time.Second, time.Second, time.Second},
		{time.Minute, time.Second, time.Second},
		{8, 1000, 8},
	} {
		pauses := New(c.first, c.longest)
		for range 2 {
			for n, interval := 0, c.begin; n < 100; n, interval = n+1, min(2*interval, c.longest) {
				// A nanosecond is for rounding.
				if p := pauses.NextBackOff(); p < interval/2-1 || p > interval+1 {
					t.Errorf("%v to %v: pause %d is %v, want %v to %v", c.first, c.longest, n, p, interval/2, interval)
				}
			}
			pauses.Reset()
		}
	}
}

func TestPausesDiffer(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 20 {
		pauses := New(time.Second, time.Minute)
		seen[pauses.NextBackOff()] = true
	}
	if len(seen) < 2 {
		t.Errorf("20 first pauses are all %v", seen)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if !Sleep(t.Context(), time.Hour) || time.Since(began) != time.Hour {
			t.Errorf("slept %v, want 1h", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		if Sleep(ctx, time.Hour) || time.Since(began) != time.Minute {
			t.Errorf("slept %v beyond the end of the context", time.Since(began))
		}
		if Sleep(ctx, 0) {
			t.Error("slept after the end of the context")
		}
	})
}

func TestPausesDontAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		pauses := New(time.Second, time.Minute)
		_ = pauses.NextBackOff()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
