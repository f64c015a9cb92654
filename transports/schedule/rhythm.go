package schedule

import "time"

// maxCorrection is the largest difference between a tick and its due time. If a tick would be
// later than this, because the machine slept or the clock was set forward, it is missed. If the
// clock is set back by no more than this, no tick is repeated. If the clock is set back by more,
// the ticks after the time that it shows then are repeated.
const maxCorrection = time.Minute

// lookInterval is the longest time between two looks at the wall clock, which may be set at any
// time.
const lookInterval = time.Minute

// rhythm computes when ticks are due. Only one goroutine calls it.
type rhythm interface {
	// start begins the first interval.
	start()
	// untilDue returns the time until the next tick is due. It is at most 0 if the tick is due.
	untilDue() time.Duration
	// advance moves on to the next tick. delay is the jitter of the due one. advance returns when
	// that tick was due, and the number of ticks that were missed before it. If the tick itself
	// comes too late, ok is false and it is counted as missed.
	advance(delay time.Duration) (due time.Time, passed int, ok bool)
}

// interval is the rhythm of every. It uses the monotonic clock of the process, not the wall clock.
type interval struct {
	every time.Duration
	now   func() time.Time // the wall clock
	begun time.Time
	taken int64
}

func (r *interval) start() { r.begun = time.Now() }

func (r *interval) offsetOf(n int64) time.Duration { return time.Duration(n) * r.every }

func (r *interval) untilDue() time.Duration { return r.offsetOf(r.taken+1) - time.Since(r.begun) }

func (r *interval) advance(delay time.Duration) (due time.Time, passed int, ok bool) {
	elapsed := time.Since(r.begun) - delay
	n := max(r.taken+1, int64(elapsed/r.every))
	late := elapsed - r.offsetOf(n)
	passed = int(n - r.taken - 1)
	r.taken = n
	if late > maxCorrection {
		return time.Time{}, passed + 1, false
	}
	// The wall clock may have been set since the start. So compute the due time from the present
	// one.
	return r.now().Add(-late - delay), passed, true
}

// alarm is the rhythm of cron. It uses the wall clock.
type alarm struct {
	calendar
	now  func() time.Time
	last time.Time // the last tick
	due  time.Time // the next tick
}

func (r *alarm) start() {}

// wallClock returns the time without its monotonic part, which doesn't change when the clock is
// set.
func (r *alarm) wallClock() time.Time { return r.now().Round(0) }

func (r *alarm) untilDue() time.Duration {
	now := r.wallClock()
	if now.Before(r.due) || r.due.IsZero() {
		after := now
		switch back := r.last.Sub(now); {
		case back > maxCorrection: // it shows another time: repeat the ticks after it
			r.last = time.Time{}
		case back > 0:
			after = r.last
		}
		if r.due = r.nextTime(after); r.due.IsZero() {
			return lookInterval
		}
	}
	return r.due.Sub(now)
}

func (r *alarm) advance(delay time.Duration) (due time.Time, passed int, ok bool) {
	r.last, r.due = r.due, time.Time{}
	if r.wallClock().Sub(r.last)-delay > maxCorrection {
		return time.Time{}, 1, false
	}
	return r.last, 0, true
}
