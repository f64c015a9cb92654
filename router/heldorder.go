package router

import (
	"errors"
	"slices"

	"github.com/pentrough/pentrough/handlers"
)

// A newer message must not overtake an older one that is held. But a device may become ready at
// any moment. Suppose that one run finds the device not ready, and is about to hold its message.
// Just then the run of a newer message could find the device ready. So a run first declares that
// it may hold its message (markUndecided), and then looks whether the device is ready. Newer
// messages wait until that run has decided (pendingOlder). A run decides when it ends. But if its
// message has to run again, the next run decides instead. That run decides when its message is
// placed, and at its end at the latest. If a message goes back to its source before the decision,
// the newer messages that wait for it go back, too (intake.cancelNewer).

// markUndecided records that a run may hold its message.
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

// markDecided undoes markUndecided. It records that the decision is made: the message is held, or
// it isn't. Messages that waited for the decision may go on.
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

// errRunAgain ends a run that would otherwise wait for an older message of its lane. The older
// message has to run again, and it can't start before this run ends.
var errRunAgain = handlers.Unavailable(errors.New("an older message must run again first"))

// pendingOlder returns nil if every older message that awaits the same name is placed or done.
// Otherwise it returns a channel that is closed at the next change. The caller then calls
// pendingOlder again.
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

// hasOlder reports whether a message that waits or is unplaced is older than r. If r is nil, any
// such message is older: it was held before the caller's message arrived.
func (hq *heldQueue) hasOlder(r *released) bool {
	if r == nil {
		return len(hq.waiting)+len(hq.unplaced) > 0
	}
	return len(hq.waiting) > 0 && hq.waiting[0].Order < r.Order || // an older one was held again
		slices.ContainsFunc(hq.unplaced, func(other *released) bool { return other.Order < r.Order })
}
