package schedule

import "time"

// leap is how far a clock may be off before it counts as another time. A tick that is later than this (the machine slept, the clock was set
// forward) is missed; a clock that is set back by no more doesn't show a tick twice.
const leap = time.Minute

// look is how often the wall clock is looked at: it may be set while a tick is waited for.
const look = time.Minute

// rhythm says when ticks are due. One goroutine asks it.
type rhythm interface {
	// start begins to count.
	start()
	// wait returns how long it is until the next tick is due; not more than 0 once it is.
	wait() time.Duration
	// take goes on to the tick after. It returns when the tick was due, how many were passed over since the one before, and whether this
	// one, which was to come so much later than due, still counts; if not it is among those passed over.
	take(delay time.Duration) (due time.Time, passed int, ok bool)
}

// interval ticks by the time that the process runs, whatever the wall clock says.
type interval struct {
	every time.Duration
	now   func() time.Time // the wall clock
	begun time.Time
	taken int64
}

func (r *interval) start() { r.begun = time.Now() }

func (r *interval) at(n int64) time.Duration { return time.Duration(n) * r.every }

func (r *interval) wait() time.Duration { return r.at(r.taken+1) - time.Since(r.begun) }

func (r *interval) take(delay time.Duration) (due time.Time, passed int, ok bool) {
	gone := time.Since(r.begun) - delay
	n := max(r.taken+1, int64(gone/r.every))
	late := gone - r.at(n)
	passed = int(n - r.taken - 1)
	r.taken = n
	if late > leap {
		return time.Time{}, passed + 1, false
	}
	// The wall clock may have been set since the start: the due time is told by what it shows now.
	return r.now().Add(-late - delay), passed, true
}

// alarm ticks by the wall clock.
type alarm struct {
	calendar
	now  func() time.Time
	last time.Time // the tick that was taken last
	due  time.Time // the next
}

func (r *alarm) start() {}

// clock returns the wall clock's time without the monotonic one, which goes on when the clock is set.
func (r *alarm) clock() time.Time { return r.now().Round(0) }

func (r *alarm) wait() time.Duration {
	now := r.clock()
	if now.Before(r.due) || r.due.IsZero() {
		after := now
		switch back := r.last.Sub(now); {
		case back > leap: // another time: what it shows again comes again
			r.last = time.Time{}
		case back > 0:
			after = r.last
		}
		if r.due = r.next(after); r.due.IsZero() {
			return look
		}
	}
	return r.due.Sub(now)
}

func (r *alarm) take(delay time.Duration) (due time.Time, passed int, ok bool) {
	r.last, r.due = r.due, time.Time{}
	if r.clock().Sub(r.last)-delay > leap {
		return time.Time{}, 1, false
	}
	return r.last, 0, true
}
