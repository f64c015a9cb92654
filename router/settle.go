package router

import (
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// beginPublishing records that the run's chain has returned, and counts the bytes of its outputs.
// It returns false if the run was cancelled, so that its outputs are discarded.
func (in *intake) beginPublishing(r *run, outputs []*message.Message) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r.life.Err() != nil {
		return false
	}
	r.entry.publishing = true
	for _, msg := range outputs {
		r.entry.outputs += sizeOf(msg.Payload, msg.Metadata)
	}
	in.inFlight.Add(r.entry.outputs)
	return true
}

// markPlaced implements handlers.Enqueued.
func (in *intake) markPlaced(e *entry) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lanes.markPlaced(e)
	if in.holds != nil {
		in.holds.markPlaced(e)
	}
	in.startRuns()
}

// settleRun ends a run, and settles the current delivery of its entry. done says that the message
// needs no other run: all its outputs are confirmed, or it was dropped.
func (in *intake) settleRun(r *run, done bool) {
	over := r.life.Err() != nil
	r.cancel(nil)
	verdict, cause := r.verdict, r.outcome.Err
	if !done && verdict == handled {
		// Publishing was given up: at the deadline of a stop, because the caller hung up, or
		// because a destination can never work.
		verdict, cause = unavailable, errNotPublished
		if over {
			verdict = cancelled
		}
	}
	in.settleEntry(r, done, verdict, cause)
	r.trace.endRun(r.outcome.Messages, verdict, cause)
}

// settleEntry is the part of settleRun that needs the lock.
func (in *intake) settleEntry(r *run, done bool, verdict verdict, cause error) {
	e, now := r.entry, time.Now()
	in.mu.Lock()
	defer in.mu.Unlock()
	in.unwatchDelivery(e)
	in.inFlight.Give(e.outputs)
	e.outputs = 0
	void := e.isVoid()
	again := !done && verdict == unavailable && !in.stopping && !void
	if done {
		in.metrics.acked.Inc()
		in.metrics.settled.Observe(now.Sub(e.arrived).Seconds())
	}
	switch {
	case done && void && in.source.Broker && e.desc.ID != "":
		e.arrived = now
		in.orphans = append(in.orphans, e)
	case done:
		in.releaseBytes(e)
		in.settleDelivery(e.delivery, &r.outcome)
	case !again:
		in.releaseBytes(e)
		in.settleDelivery(e.delivery, nil)
	}
	delete(in.active, e)
	if in.holds != nil {
		if !done && !again {
			in.cancelNewer(e)
		}
		in.holds.settleRun(e, done, again)
	}
	in.lanes.endRun(e, again, now)
	in.updatePause(e, done, verdict, cause)
	in.checkDrained()
	in.startRuns()
}

// settleDelivery settles a delivery. If the transport panics, settleDelivery logs that, and the
// delivery counts as settled. The caller has the lock.
func (in *intake) settleDelivery(d *transports.Delivery, o *transports.Outcome) {
	defer func() {
		if v := recover(); v != nil {
			in.log.Error("panic while settling a delivery", "uuid", d.UUID, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	d.Settle(o)
}

// rejectEntry settles an entry that doesn't start. A source whose callers can't wait gets the
// reason. Other sources get the delivery back. The caller of rejectEntry has the lock.
func (in *intake) rejectEntry(e *entry, why error) {
	in.markDropped(e)
	if !in.source.Impatient {
		in.settleDelivery(e.delivery, nil)
		return
	}
	err := handlers.Unavailable(why)
	in.settleDelivery(e.delivery, &transports.Outcome{ID: e.desc.ID, Err: err, Code: statusCode(err)})
}

// markDropped records that an entry leaves the lanes without another run. If no run has decided
// yet whether to hold the message, it isn't held. The caller has the lock.
func (in *intake) markDropped(e *entry) {
	in.releaseBytes(e)
	if in.holds != nil {
		in.cancelNewer(e)
		in.holds.update(func(q *heldQueues) { q.markDecided(e) })
	}
}

// cancelNewer is called when an entry goes back to its source, or stays in the ledger, without an
// outcome. A run of a newer message of the same key may have started and may wait for the entry.
// cancelNewer cancels that run, since the newer message would now overtake the entry. The caller
// has the lock.
func (in *intake) cancelNewer(e *entry) {
	if !in.holds.isAwaited(e) {
		return
	}
	for _, key := range []laneKey{e.lane.key, {key: e.desc.Key}} {
		if ln := in.lanes.byKey[key]; ln != nil && ln.current != nil && ln.current != e {
			ln.current.keptRun = false
			ln.current.run.cancel(errOlderReturned)
		}
	}
}

// updatePause reacts to the end of a run: it begins a pause, schedules the next probe, or ends the
// pause. The caller has the lock.
func (in *intake) updatePause(e *entry, done bool, v verdict, cause error) {
	probe := in.pause.probe == e
	if probe {
		in.pause.probe = nil
	}
	switch {
	case v == unavailable && !in.stopping:
		in.metrics.unavailable.Inc()
		in.metrics.paused.Set(1)
		in.pause.beginOrProlong(cause, probe, in.allowProbe)
	case probe && done:
		in.metrics.paused.Set(0)
		in.pause.endPause(true)
		in.lanes.restartStallTimes(time.Now())
	}
}

// allowProbe lets the next run start as a probe. The timer of the pause calls it.
func (in *intake) allowProbe() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.pause.probeDue = true
	in.startRuns()
}
