package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/pentrough/pentrough/handlers"
)

// heldQueues decides which held messages are released, and when.
//
// The idea: messages that await the same thing, such as one device, form a queue in order of
// arrival. When that thing is ready, the queue is released in rounds (heldrounds.go). A held
// message is in one of the following states:
//
//	waiting    in heldQueue.waiting
//	aside      in heldQueues.aside, to be released apart from its queue: it expired, a newer one
//	           superseded it, or the ledger has its outcome
//	unplaced   released, unsettled, and without a place in the handler's order (handlers.Enqueued)
//	placed     released, unsettled, and with such a place
//
// When a released message is settled, it is done or held again. If its run ended without an
// outcome, the message stays released and runs again.
//
// The invariants: a queue releases its messages in order. A newer message isn't handled before an
// older one that is held or may be held (heldorder.go). A queue is in byAwaits as long as it has
// waiting or released messages, or runs that may hold their message in it.
//
// heldQueues has no goroutines, locks or clocks. holds.mu guards it, and its methods receive the
// time.
type heldQueues struct {
	// maxUnsettled limits how many released messages may be unsettled. maxPerQueue limits those of
	// one queue.
	maxUnsettled, maxPerQueue int

	byAwaits map[string]*heldQueue
	// checkList has the queues to check next. In a check, holds.release asks the handler whether
	// the thing that the queue's messages await is ready.
	checkList []*heldQueue
	// roundList has the queues in a round. They release one message each in turn.
	roundList []*heldQueue
	// pauses says when the pause of a queue ends.
	pauses   deadlines[*heldQueue]
	aside    []*released
	expiring deadlines[*handlers.Held]
	// waiting is how many messages wait in queues. unsettled is how many released ones are
	// unsettled.
	waiting   int
	unsettled int
	// loaded says that the messages that the ledger owned at the start are in the queues.
	loaded bool
	// seenEarly has Held.Order of the messages that were added before loaded was set. Such a
	// message may also be in the ledger's list, but is added once.
	seenEarly map[int64]struct{}
	// changed says that a new call of release may return messages, or a shorter wait.
	changed bool
}

// heldQueue has the messages that await one thing.
type heldQueue struct {
	awaits    string
	waiting   []*handlers.Held // in order
	unsettled int              // released and unsettled messages, apart from those that were aside
	unplaced  []*released      // unsettled messages without a place in the handler's order
	undecided int              // messages whose run may hold them in this queue
	rerunning int              // undecided messages that wait for another run; that run decides

	inRound                  bool
	inCheckList, inRoundList bool
	progress                 bool // a message of the current or last round is done
	backoff                  *backoff.ExponentialBackOff
	changed                  chan struct{} // closed at the next change; nil if no run waits
}

// released is a held message that is in the pipeline again.
type released struct {
	*handlers.Held
	handlers.Resumption
	aside  bool // it was in heldQueues.aside
	placed bool
}

func newHeldQueues(most, perQueue int) *heldQueues {
	return &heldQueues{maxUnsettled: most, maxPerQueue: perQueue, byAwaits: map[string]*heldQueue{}, seenEarly: map[int64]struct{}{}}
}

// queueFor returns the queue of the messages that await this name. It makes one if there is none.
func (q *heldQueues) queueFor(awaits string) *heldQueue {
	hq := q.byAwaits[awaits]
	if hq == nil {
		hq = &heldQueue{awaits: awaits}
		q.byAwaits[awaits] = hq
	}
	return hq
}

// notifyWaiters wakes the runs that wait for a change of a queue. It deletes the queue if it is
// empty. It is called after each change.
func (q *heldQueues) notifyWaiters(hq *heldQueue) {
	if hq.changed != nil {
		close(hq.changed)
		hq.changed = nil
	}
	if len(hq.waiting) == 0 && hq.unsettled == 0 && hq.undecided == 0 {
		q.pauses.remove(hq)
		delete(q.byAwaits, hq.awaits)
	}
}

func (q *heldQueues) notifyAllWaiters() {
	for _, hq := range q.byAwaits {
		q.notifyWaiters(hq)
	}
}

// loadOwned adds the messages that the ledger owned at the start.
func (q *heldQueues) loadOwned(owned []*handlers.Held) {
	for _, held := range owned {
		if q.recordSeen(held) {
			continue
		}
		if held.Ended {
			q.setAside(&released{Held: held})
			continue
		}
		q.addHeld(held)
		if hq := q.byAwaits[held.Awaits]; hq != nil && held.Begun && !hq.inRound {
			// The handler can finish a begun message even before the thing that it awaits is
			// ready.
			q.startRound(hq)
		}
	}
	q.loaded = true
	q.notifyAllWaiters()
}

// recordSeen reports whether a message is already in seenEarly. As long as the ledger's list isn't
// loaded, recordSeen also adds the message to seenEarly.
func (q *heldQueues) recordSeen(held *handlers.Held) bool {
	if _, known := q.seenEarly[held.Order]; known {
		return true
	}
	if !q.loaded {
		q.seenEarly[held.Order] = struct{}{}
	}
	return false
}

// setAside puts a message into aside, so that it is released apart from its queue.
func (q *heldQueues) setAside(r *released) {
	r.aside = true
	q.aside = append(q.aside, r)
	q.changed = true
}

// addHeld adds a held message to its queue. The queue is released as soon as the thing that its
// messages await is ready.
func (q *heldQueues) addHeld(held *handlers.Held) {
	q.insertHeld(held)
	if hq := q.byAwaits[held.Awaits]; hq.inRound {
		q.listRound(hq)
	} else {
		q.scheduleCheck(hq)
	}
}

// insertHeld inserts a message into its queue in order. If the message supersedes others, they are
// set aside. If another one supersedes it, it is set aside itself.
func (q *heldQueues) insertHeld(held *handlers.Held) {
	hq := q.queueFor(held.Awaits)
	if held.Sets != "" && q.supersede(hq, held) {
		return
	}
	at, _ := slices.BinarySearchFunc(hq.waiting, held, func(a, b *handlers.Held) int { return cmp.Compare(a.Order, b.Order) })
	hq.waiting = slices.Insert(hq.waiting, at, held)
	q.waiting++
	if !held.Expires.IsZero() && q.expiring.set(held, held.Expires) {
		q.changed = true
	}
}

// supersede compares a message with those that wait in its queue. If a newer one supersedes the
// message, supersede sets the message aside and returns true. Otherwise it sets aside the older
// ones that the message supersedes.
func (q *heldQueues) supersede(hq *heldQueue, held *handlers.Held) bool {
	same := func(other *handlers.Held) bool { return other.Sets == held.Sets && !other.Begun && !held.Begun }
	if i := slices.IndexFunc(hq.waiting, func(other *handlers.Held) bool { return same(other) && other.Order > held.Order }); i >= 0 {
		q.setAside(&released{Held: held, Resumption: handlers.Resumption{SupersededBy: hq.waiting[i].ID}})
		return true
	}
	hq.waiting = slices.DeleteFunc(hq.waiting, func(other *handlers.Held) bool {
		if same(other) {
			q.countDequeued(other)
			q.setAside(&released{Held: other, Resumption: handlers.Resumption{SupersededBy: held.ID}})
		}
		return same(other)
	})
	return false
}

// countDequeued records that a message no longer waits in its queue.
func (q *heldQueues) countDequeued(held *handlers.Held) {
	q.waiting--
	q.expiring.remove(held)
}

// markPlaced records that a run's message has its place in the handler's order. If an earlier run
// left open whether the message is held, the decision is made now.
func (q *heldQueues) markPlaced(e *entry) {
	if e.rerun {
		q.markDecided(e)
	}
	if r := e.released; r != nil && !r.aside && !r.placed {
		r.placed = true
		hq := q.queueFor(r.Awaits)
		hq.removeUnplaced(r)
		q.notifyWaiters(hq)
	}
}

func (hq *heldQueue) removeWaiting(held *handlers.Held) {
	hq.waiting = slices.DeleteFunc(hq.waiting, func(other *handlers.Held) bool { return other == held })
}

func (hq *heldQueue) removeUnplaced(r *released) {
	hq.unplaced = slices.DeleteFunc(hq.unplaced, func(other *released) bool { return other == r })
}

// settleRun records the end of a run. If rerun is true, the message runs again, and the next run
// decides whether the message is held. A released message needs no decision, because newer
// messages wait for every unplaced released message. If a released message is done, settleRun
// returns it, and the caller disowns it in the ledger.
func (q *heldQueues) settleRun(e *entry, acked, rerun bool, now time.Time) (done *released) {
	held := e.heldAs
	if rerun && e.released == nil {
		if held != nil {
			q.markUndecided(e, held.Awaits)
		}
		if e.undecidedFor != "" {
			hq := q.queueFor(e.undecidedFor)
			hq.rerunning++
			e.rerun = true
			q.notifyWaiters(hq)
		}
		return nil
	}
	q.markDecided(e)
	e.heldAs = nil
	switch {
	case e.released == nil:
		if held != nil {
			q.addHeld(held)
		}
		return nil
	case rerun && held == nil:
		if r := e.released; !r.aside && r.placed {
			r.placed = false
			hq := q.queueFor(r.Awaits)
			hq.unplaced = append(hq.unplaced, r)
		}
		return nil
	}
	q.finishReleased(e.released, held != nil, acked, now)
	if acked && held == nil {
		return e.released
	}
	return nil
}

// finishReleased records that a released message was settled: it is done or held again.
func (q *heldQueues) finishReleased(r *released, heldAgain, acked bool, now time.Time) {
	q.unsettled--
	hq := q.queueFor(r.Awaits)
	if !r.aside {
		hq.unsettled--
		hq.removeUnplaced(r)
	}
	if heldAgain {
		hq.inRound = hq.inRound && r.aside
		q.insertHeld(r.Held)
	} else if acked {
		hq.progress = true
	}
	switch {
	case hq.inRound && len(hq.waiting) > 0:
		q.listRound(hq)
	case r.aside:
		q.scheduleCheck(hq)
	case hq.unsettled == 0:
		q.endRound(hq, now)
	}
	q.notifyWaiters(hq)
	q.changed = true
}
