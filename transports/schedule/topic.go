package schedule

import (
	"context"
	"math/rand/v2"
	"time"
)

// topic makes the ticks of one table. The clock's mu guards the fields after rhythm.
type topic struct {
	clock  *clock
	name   string
	config TopicConfig
	rhythm rhythm

	consumers map[string]*consumer // by pipeline
	due       uint64               // ticks that were due, including missed ones
	made      uint64
}

// run makes ticks until ctx ends.
func (t *topic) run(ctx context.Context) {
	t.rhythm.start()
	if t.config.AtStart {
		due := t.clock.env.Now()
		if !sleep(ctx, t.drawJitter()) {
			return
		}
		t.makeTick(due, 0)
	}
	for {
		delay := t.drawJitter()
		for {
			left := t.rhythm.untilDue() + delay
			if left <= 0 {
				break
			}
			if !sleep(ctx, min(left, lookInterval)) {
				return
			}
		}
		if due, passed, ok := t.rhythm.advance(delay); ok {
			t.makeTick(due, passed)
		} else {
			t.skipTicks(passed)
		}
	}
}

// drawJitter returns the random delay of the next tick.
func (t *topic) drawJitter() time.Duration {
	if t.config.Jitter == 0 {
		return 0
	}
	return rand.N(t.config.Jitter + 1)
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// makeTick gives every consumer a tick, and counts those that were missed before it.
func (t *topic) makeTick(due time.Time, passed int) {
	k := t.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.isQuiet() {
		return
	}
	t.countMissed(passed)
	t.due++
	t.made++
	it := newTick(k.env, t.name, t.config, due, t.due)
	k.taps.Show(t.name, it.Message())
	for _, c := range t.consumers {
		c.offer(it)
	}
}

// skipTicks counts and logs ticks that are too late.
func (t *topic) skipTicks(n int) {
	t.clock.env.Logger.Warn("ticks are left out, because they are more than a minute late: the machine or the process was stopped, or the clock was set",
		"topic", t.name, "ticks", n)
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.countMissed(n)
}

// countMissed counts ticks that no consumer gets. The caller has locked mu.
func (t *topic) countMissed(n int) {
	t.due += uint64(n)
	for _, c := range t.consumers {
		c.countMissed(n)
	}
}
