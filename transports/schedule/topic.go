package schedule

import (
	"context"
	"math/rand/v2"
	"time"
)

// topic makes the ticks of one table. The clock's lock guards what follows the rhythm.
type topic struct {
	clock  *clock
	name   string
	config TopicConfig
	rhythm rhythm

	consumers map[string]*consumer // by pipeline
	due       uint64               // ticks that came due, those passed over among them
	made      uint64
}

// run makes ticks until ctx ends.
func (t *topic) run(ctx context.Context) {
	t.rhythm.start()
	if t.config.AtStart {
		due := t.clock.env.Now()
		if !sleep(ctx, t.delay()) {
			return
		}
		t.tick(due, 0)
	}
	for {
		delay := t.delay()
		for {
			left := t.rhythm.wait() + delay
			if left <= 0 {
				break
			}
			if !sleep(ctx, min(left, look)) {
				return
			}
		}
		if due, passed, ok := t.rhythm.take(delay); ok {
			t.tick(due, passed)
		} else {
			t.pass(passed)
		}
	}
}

// delay draws how much later than due the next tick comes.
func (t *topic) delay() time.Duration {
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

// tick gives every consumer a tick, after some that it missed.
func (t *topic) tick(due time.Time, passed int) {
	k := t.clock
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.quiet() {
		return
	}
	t.miss(passed)
	t.due++
	t.made++
	it := newTick(k.env, t.name, t.config, due, t.due)
	k.taps.Show(t.name, it.Message())
	for _, c := range t.consumers {
		c.offer(it)
	}
}

// pass leaves out ticks that can't come any more when they were due.
func (t *topic) pass(n int) {
	t.clock.env.Logger.Warn("ticks are left out: more than a minute late, as the machine or the process stood still or the clock was set",
		"topic", t.name, "ticks", n)
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.miss(n)
}

// miss counts ticks that nobody gets. The lock is held.
func (t *topic) miss(n int) {
	t.due += uint64(n)
	for _, c := range t.consumers {
		c.miss(n)
	}
}
