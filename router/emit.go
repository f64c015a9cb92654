package router

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// emit hands started messages to Watermill.
func (in *intake) emit() {
	defer close(in.out)
	for {
		in.mu.Lock()
		e := in.start()
		in.mu.Unlock()
		if e == nil {
			select {
			case <-in.wake:
				continue
			case <-in.closed:
				return
			}
		}
		dup := e.msg.Copy()
		in.tracing.begin(e.run, dup)
		dup.SetContext(e.run.base)
		in.work.Go(func() { in.await(e, dup) })
		select {
		case in.out <- dup:
		case <-in.closed:
			dup.Nack()
			return
		}
	}
}

// start picks the next message and makes its run. The lock is held.
func (in *intake) start() *entry {
	if in.stopping || in.givingBack {
		return nil
	}
	// A refusal asks nothing of what is down, so it goes on in a pause, and is no probe.
	e := in.lanes.nextRefused()
	if e == nil && in.pause.mayStart() {
		if e = in.lanes.next(time.Now()); e != nil && in.pause.on() {
			in.pause.probe = e
		}
	}
	if e == nil {
		return nil
	}
	e.run = newRun(in, e)
	e.run.watch()
	in.active[e] = struct{}{}
	return e
}

// await waits for the copy to be settled.
func (in *intake) await(e *entry, dup *message.Message) {
	select {
	case <-dup.Acked():
		in.settle(e, e.run.confirm())
	case <-dup.Nacked():
		in.settle(e, false)
	}
}

// settle passes the fate of the copy on to the original.
func (in *intake) settle(e *entry, acked bool) {
	r := e.run
	over := r.base.Err() != nil
	r.cancel(nil)
	in.mu.Lock()
	r.unwatch()
	r.mu.Lock()
	verdict, cause := r.verdict, r.outcome.Err
	r.mu.Unlock()
	if !acked && verdict == handled {
		// Publishing was given up: at the stop's deadline, when its caller had gone, or because it can't work as things are.
		verdict, cause = unavailable, errNotPublished
		if over {
			verdict = cancelled
		}
	}
	void := e.void()
	again := false
	if acked {
		in.metrics.acked.Inc()
	}
	switch {
	case acked && void && in.source.Broker && e.desc.ID != "":
		e.arrived = time.Now()
		in.orphans = append(in.orphans, e)
	case acked:
		e.msg.Ack() // without effect if the delivery is void
	case verdict == unavailable && !in.stopping && !void:
		again = true
	case !void:
		e.msg.Nack()
	}
	delete(in.active, e)
	if in.holds != nil {
		in.holds.settle(e, acked, again)
	}
	in.lanes.settle(e, again, time.Now())
	in.afterRun(e, acked, verdict, cause)
	in.checkDrained()
	in.signal()
	in.mu.Unlock()
	r.trace.end(r, verdict, cause)
	if acked {
		r.reply()
	}
}

// afterRun pauses, probes on or resumes, by how a run ended. The lock is held.
func (in *intake) afterRun(e *entry, acked bool, v verdict, cause error) {
	probe := in.pause.probe == e
	if probe {
		in.pause.probe = nil
	}
	switch {
	case v == unavailable && !in.stopping:
		in.metrics.unavailable.Inc()
		if !in.pause.on() {
			in.log.Warn("pipeline paused; its messages wait and are tried again", "err", cause)
			in.metrics.paused.Set(1)
		}
		in.pause.begin(cause, probe, in.probeDue)
	case probe && acked:
		in.log.Info("pipeline works again", "paused_for", time.Since(in.pause.since).Round(time.Millisecond))
		in.metrics.paused.Set(0)
		in.pause.end()
		in.lanes.resume(time.Now())
	}
}

func (in *intake) probeDue() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.pause.due = true
	in.signal()
}

// enqueued is handlers.Enqueued.
func (in *intake) enqueued(e *entry) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.lanes.place(e)
	if in.holds != nil {
		in.holds.markPlaced(e)
	}
	in.signal()
}

// beginPublishing notes that the run's chain has returned. It is false if the run was cancelled: what it returned counts for nothing.
func (in *intake) beginPublishing(r *run) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if r.base.Err() != nil {
		return false
	}
	r.entry.publishing = true
	return true
}

func (in *intake) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}
