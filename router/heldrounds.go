package router

import (
	"time"

	"github.com/pentrough/pentrough/internal/backoff"
)

const (
	// wallLook is the longest time between two looks at the wall clock for expired messages. It is
	// short, since people may set that clock at any time.
	wallLook = time.Minute
	// firstRound and lastRound bound the pause after a round without progress.
	firstRound = 100 * time.Millisecond
	lastRound  = 5 * time.Second
)

// A queue is released in rounds. Before a round, a check asks the handler whether the thing that
// the queue's messages await is ready. The check is scheduled when
//
//   - a message is held (addHeld),
//   - a run decides whether its message is held (markDecided),
//   - the thing that the messages await becomes ready (markReady),
//   - a round ends (endRound), or the pause after it (endPauses).
//
// If the thing is ready, a round starts. At first the round releases up to maxPerQueue messages of
// the queue, in order. Whenever one of them is settled, the round releases the next one. The round
// ends when a message is held again, or when no message waits. If no message of the round is done,
// a pause follows. The reason is that even a ready device may be unable to take commands: for
// example, its queue in the host may be full.

// markReady records that the thing that a queue's messages await has become ready.
func (q *heldQueues) markReady(awaits string) {
	if hq := q.byAwaits[awaits]; hq != nil {
		hq.backoff = nil
		q.scheduleCheck(hq)
	}
}

// scheduleCheck adds a queue to checkList, unless it is empty, in a round or already there.
func (q *heldQueues) scheduleCheck(hq *heldQueue) {
	if !hq.inCheckList && !hq.inRound && len(hq.waiting) > 0 {
		hq.inCheckList = true
		q.pauses.remove(hq)
		q.checkList = append(q.checkList, hq)
		q.changed = true
	}
}

// nextCheck removes the first queue from checkList and returns it, or nil. The caller checks
// whether the queue is ready and calls finishCheck.
func (q *heldQueues) nextCheck() *heldQueue {
	if len(q.checkList) == 0 {
		return nil
	}
	hq := q.checkList[0]
	q.checkList = q.checkList[1:]
	hq.inCheckList = false
	return hq
}

// finishCheck starts a round of a queue if the check has found it ready.
func (q *heldQueues) finishCheck(hq *heldQueue, ready bool) {
	if ready && !hq.inRound && hq.unsettled == 0 && len(hq.waiting) > 0 {
		q.startRound(hq)
	}
}

// startRound starts a round of a queue, without a check.
func (q *heldQueues) startRound(hq *heldQueue) {
	hq.inRound, hq.progress = true, false
	q.listRound(hq)
}

// listRound adds a queue to roundList, unless it is there.
func (q *heldQueues) listRound(hq *heldQueue) {
	if !hq.inRoundList {
		hq.inRoundList = true
		q.roundList = append(q.roundList, hq)
		q.changed = true
	}
}

// endRound ends the round of a queue, if it is in one, and schedules the next check. After a round
// with progress, the check comes at once. Otherwise it comes after a pause.
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

// release returns the messages to release now. It also returns how long the caller may wait before
// the next call of release. If the queues change earlier, the caller calls release at once. now is
// the monotonic clock's time for pauses, and wall is the wall clock's time for expiry.
func (q *heldQueues) release(now, wall time.Time) ([]*released, time.Duration) {
	wait := min(q.expireWaiting(wall), q.endPauses(now))
	var all []*released
	for q.unsettled < q.maxUnsettled && len(q.aside) > 0 {
		all = append(all, q.aside[0])
		q.aside = q.aside[1:]
		q.unsettled++
	}
	for q.unsettled < q.maxUnsettled && len(q.roundList) > 0 {
		hq := q.roundList[0]
		q.roundList = q.roundList[1:]
		hq.inRoundList = false
		if !hq.inRound || len(hq.waiting) == 0 || hq.unsettled >= q.maxPerQueue {
			continue
		}
		r := &released{Held: hq.waiting[0]}
		hq.waiting = hq.waiting[1:]
		q.countDequeued(r.Held)
		hq.unsettled++
		q.unsettled++
		hq.unplaced = append(hq.unplaced, r)
		all = append(all, r)
		q.listRound(hq)
	}
	return all, wait
}

// expireWaiting sets aside the messages that have expired. It returns how long the caller may wait
// before it calls expireWaiting again.
func (q *heldQueues) expireWaiting(wall time.Time) time.Duration {
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

// endPauses schedules a check of the queues whose pause has ended. It returns how long the caller
// may wait before it calls endPauses again.
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
