package router

import (
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
)

const (
	// wallLook is how often the wall clock is looked at for what expires: it may be set at any time.
	wallLook = time.Minute
	// firstRound and lastRound bound the pauses between rounds that bring nothing forward.
	firstRound = 100 * time.Millisecond
	lastRound  = 5 * time.Second
)

// A queue is released in rounds. It is asked whether it is ready (ask) when a message is held, when a
// decision is made (markDecided), when what it awaits becomes ready (markReady), and after its pause.
//
// If it is ready a round starts: its messages come back in order, perQueue at once, the next as one
// ends. The round is over when a message is held again, or when none is left. A round that brought
// nothing forward is followed by a pause, because a ready device may still take nothing, for example
// when its queue is full.

// markReady notes that what a queue awaits has become ready.
func (q *heldQueues) markReady(awaits string) {
	if hq := q.byAwaits[awaits]; hq != nil {
		hq.backoff = nil
		q.scheduleCheck(hq)
	}
}

// ask has it looked up whether a queue is ready.
func (q *heldQueues) scheduleCheck(hq *heldQueue) {
	if !hq.inChecks && !hq.inRound && len(hq.waiting) > 0 {
		hq.inChecks = true
		q.pauses.remove(hq)
		q.checks = append(q.checks, hq)
		q.changed = true
	}
}

// nextAsked returns a queue whose readiness is to be looked up, or nil. The answer goes to
// answerAsked.
func (q *heldQueues) nextCheck() *heldQueue {
	if len(q.checks) == 0 {
		return nil
	}
	hq := q.checks[0]
	q.checks = q.checks[1:]
	hq.inChecks = false
	return hq
}

// answerAsked starts a round of a queue that is ready.
func (q *heldQueues) finishCheck(hq *heldQueue, ready bool) {
	if ready && !hq.inRound && hq.unsettled == 0 && len(hq.waiting) > 0 {
		q.startRound(hq)
	}
}

func (q *heldQueues) startRound(hq *heldQueue) {
	hq.inRound, hq.progress = true, false
	q.listRound(hq)
}

func (q *heldQueues) listRound(hq *heldQueue) {
	if !hq.inRounds {
		hq.inRounds = true
		q.rounds = append(q.rounds, hq)
		q.changed = true
	}
}

// endRound ends a round, if there is one, and has the queue asked again: at once, or after a
// pause if the round brought nothing forward.
func (q *heldQueues) endRound(hq *heldQueue, now time.Time) {
	hq.inRound = false
	if hq.progress || len(hq.waiting) == 0 {
		hq.backoff = nil
		q.scheduleCheck(hq)
		return
	}
	if hq.backoff == nil {
		pauses := backoff.New(firstRound, lastRound)
		hq.backoff = &pauses
	}
	q.pauses.set(hq, now.Add(hq.backoff.NextBackOff()))
	q.changed = true
}

// release returns the messages that come back now, and for how long nothing more comes back
// unless something changes. wall is the clock by which messages expire.
func (q *heldQueues) release(now, wall time.Time) ([]*released, time.Duration) {
	wait := min(q.asideExpired(wall), q.endPauses(now))
	var back []*released
	for q.unsettled < q.maxUnsettled && len(q.aside) > 0 {
		back = append(back, q.aside[0])
		q.aside = q.aside[1:]
		q.unsettled++
	}
	for q.unsettled < q.maxUnsettled && len(q.rounds) > 0 {
		hq := q.rounds[0]
		q.rounds = q.rounds[1:]
		hq.inRounds = false
		if !hq.inRound || len(hq.waiting) == 0 || hq.unsettled >= q.maxPerQueue {
			continue
		}
		r := &released{Held: hq.waiting[0]}
		hq.waiting = hq.waiting[1:]
		q.countDequeued(r.Held)
		hq.unsettled++
		q.unsettled++
		hq.unplaced = append(hq.unplaced, r)
		back = append(back, r)
		q.listRound(hq)
	}
	return back, wait
}

// expire sets those aside whose time is over, and returns when to look again.
func (q *heldQueues) asideExpired(wall time.Time) time.Duration {
	for {
		held, at, ok := q.expiring.first()
		if !ok {
			return wallLook
		}
		if left := at.Sub(wall); left > 0 {
			return min(wallLook, left)
		}
		q.countDequeued(held)
		hq := q.byAwaits[held.Awaits]
		hq.removeWaiting(held)
		q.setAside(&released{Held: held})
		q.notifyWaiters(hq)
	}
}

// endPauses has those queues asked whose pause is over, and returns when the next one is.
func (q *heldQueues) endPauses(now time.Time) time.Duration {
	for {
		hq, at, ok := q.pauses.first()
		if !ok {
			return wallLook
		}
		if left := at.Sub(now); left > 0 {
			return left
		}
		q.pauses.remove(hq)
		q.scheduleCheck(hq)
	}
}
