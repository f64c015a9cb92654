package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/pentrough/pentrough/handlers"
)

// heldQueues decide which held messages come back to their pipeline, and when.
//
// Messages that await the same thing, such as a device, form a queue in the order in which they
// came. When that thing is ready, the queue is released in a round (heldrounds.go). A message
// goes through these states:
//
//	waiting      in its queue
//	in flight    released and not settled: unplaced until the handler gives it a place in an order of its own, then placed
//	aside        released outside of its queue, as it has nothing to wait for: it expired, a newer one took its place, or the ledger knows its end
//
// When it is settled it is done with, or held again, or run again.
//
// Newer messages wait for older ones that are held or may be (heldorder.go).
//
// A queue is in byAwaits as long as messages wait in it, are in flight from it, or are undecided
// about it.
//
// Like lanes it is a state machine without goroutines, locks or clocks of its own: holds has the
// lock and tells the time.
type heldQueues struct {
	// most is how many messages are in flight at once, perQueue of one queue.
	maxUnsettled, maxPerQueue int

	byAwaits  map[string]*heldQueue
	checks    []*heldQueue          // their readiness is to be looked up
	rounds    []*heldQueue          // in a round, with messages that wait; each releases one in turn
	pauses    deadlines[*heldQueue] // when a queue is asked again
	aside     []*released           // to be released outside of their queues
	expiring  deadlines[*handlers.Held]
	waiting   int
	unsettled int
	// loaded says that what the ledger owned at the start is in queues.
	loaded bool
	// early holds the Order of every message seen before that. A message can be both in the ledger's
	// list and reported by a run; it counts once.
	seenEarly map[int64]struct{}
	// changed says that release may have more to return than when it last ran, or earlier.
	changed bool
}

// heldQueue is the queue of what awaits the same.
type heldQueue struct {
	awaits    string
	waiting   []*handlers.Held // in order
	unsettled int
	unplaced  []*released // in flight, and without a place in the handler's order yet
	undecided int         // runs that may yet hold their message here
	rerunning int         // those of them that ended and will run again

	inChecks, inRound, inRounds bool // isAsked and inRounds: it is in that list
	progress                    bool // a message of this round was not held again
	backoff                     *backoff.ExponentialBackOff
	changed                     chan struct{} // made by who waits for a change
}

// resumed is a held message that comes back.
type released struct {
	*handlers.Held
	handlers.Resumption
	aside  bool
	placed bool
}

func newHeldQueues(most, perQueue int) *heldQueues {
	return &heldQueues{maxUnsettled: most, maxPerQueue: perQueue, byAwaits: map[string]*heldQueue{}, seenEarly: map[int64]struct{}{}}
}

// queue returns the queue of what awaits this.
func (q *heldQueues) queueFor(awaits string) *heldQueue {
	hq := q.byAwaits[awaits]
	if hq == nil {
		hq = &heldQueue{awaits: awaits}
		q.byAwaits[awaits] = hq
	}
	return hq
}

// touch wakes those who wait for a change of a queue, and forgets the queue if it is empty.
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

// load adds what the ledger owned at the start.
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
		if hq := q.byAwaits[held.Awaits]; hq != nil && held.Begun && !hq.inRound { // a newer one may have taken its place
			q.startRound(hq) // what became of it can be told without what it awaits
		}
	}
	q.loaded = true
	q.notifyAllWaiters()
}

// known reports whether a message was seen before the ledger's list was loaded, and records it until then.
func (q *heldQueues) recordSeen(held *handlers.Held) bool {
	if _, known := q.seenEarly[held.Order]; known {
		return true
	}
	if !q.loaded {
		q.seenEarly[held.Order] = struct{}{}
	}
	return false
}

func (q *heldQueues) setAside(r *released) {
	r.aside = true
	q.aside = append(q.aside, r)
	q.changed = true
}

// add puts a message that is held now into its queue, and has the queue released when it can be.
func (q *heldQueues) addHeld(held *handlers.Held) {
	q.insertHeld(held)
	if hq := q.byAwaits[held.Awaits]; hq.inRound {
		q.listRound(hq)
	} else {
		q.scheduleCheck(hq)
	}
}

// put puts a message into its queue, unless a newer one takes its place, and takes out those
// whose place it takes.
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

// supersede sets those aside that set the same and are older than held. It reports true if held
// itself was set aside for a newer one.
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

// leave notes that a message no longer waits in its queue.
func (q *heldQueues) countDequeued(held *handlers.Held) {
	q.waiting--
	q.expiring.remove(held)
}

// markPlaced notes that a run's message has its place in the handler's order, so that it isn't held.
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

// settle records the end of a run. If rerun is set the message runs again and stays undecided.
// settle returns a message that came back and is done, for the ledger to disown.
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

// land takes in the end of a message that was in flight: it is held again, or done with.
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
