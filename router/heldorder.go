package router

import (
	"errors"
	"slices"

	"github.com/pentrough/pentrough/handlers"
)

// A newer message must not overtake one that is held, and a thing may become ready at any
// moment. So a run says that its message may be held before it looks whether the thing is ready
// (markUndecided), and newer ones wait until that is decided (before).

// markUndecided notes that a run's message may be held.
func (q *heldQueues) markUndecided(e *entry, awaits string) {
	if e.undecidedFor != awaits {
		q.markDecided(e)
	}
	switch {
	case e.undecidedFor == "":
		e.undecidedFor = awaits
		q.queueFor(awaits).undecided++
	case e.rerun:
		q.queueFor(awaits).rerunning--
		e.rerun = false
	}
}

// markDecided records that the held/not-held decision for a run's message has been made.
// Messages that waited for it may go on.
func (q *heldQueues) markDecided(e *entry) {
	if e.undecidedFor == "" {
		return
	}
	hq := q.queueFor(e.undecidedFor)
	hq.undecided--
	if e.rerun {
		hq.rerunning--
	}
	e.undecidedFor, e.rerun = "", false
	q.scheduleCheck(hq)
	q.notifyWaiters(hq)
}

// errRunAgain has a message run again instead of waiting for an older one: that runs again first, in
// the same lane, and would wait behind it.
var errRunAgain = handlers.Unavailable(errors.New("an older message is to be run again first"))

// before returns nil if no older message that awaits the same is held or may be. Otherwise it
// returns a channel that is closed when that may have changed.
func (q *heldQueues) pendingOlder(e *entry, awaits string) (<-chan struct{}, error) {
	older := false
	if hq := q.byAwaits[awaits]; hq != nil {
		undecided := hq.undecided
		if e.undecidedFor == awaits {
			undecided--
		} else if e.released == nil && hq.rerunning > 0 {
			return nil, errRunAgain
		}
		older = undecided > 0 || hq.hasOlder(e.released)
	}
	if !older && q.loaded {
		return nil, nil
	}
	hq := q.queueFor(awaits)
	if hq.changed == nil {
		hq.changed = make(chan struct{})
	}
	return hq.changed, nil
}

// hasOlder reports whether a message is in the queue, or in flight without a place, that is
// older than one that came back; nil is newer than all.
func (hq *heldQueue) hasOlder(r *released) bool {
	if r == nil {
		return len(hq.waiting)+len(hq.unplaced) > 0
	}
	return len(hq.waiting) > 0 && hq.waiting[0].Order < r.Order || // it was held again
		slices.ContainsFunc(hq.unplaced, func(other *released) bool { return other.Order < r.Order }) // it was held later
}
