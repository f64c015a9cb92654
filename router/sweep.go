package router

import (
	"time"
)

// sweepInterval is the time between two looks for stalled lanes, overdue messages and void
// deliveries.
const sweepInterval = 250 * time.Millisecond

// runSweeps calls sweepOnce until the intake closes. It is a goroutine.
func (in *intake) runSweeps() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-in.closed:
			return
		case now := <-ticker.C:
			in.sweepOnce(now)
		}
	}
}

// sweepOnce sweeps the lanes, forgets old orphans and updates the metrics. If a message from a
// broker is overdue, sweepOnce gives the subscription back.
func (in *intake) sweepOnce(now time.Time) {
	in.mu.Lock()
	late := in.lanes.refuseOverdue(now)
	for e := range in.active {
		late = late || e.isOverdue(now, in.lanes.deadline)
	}
	if !in.pause.isOn() {
		in.lanes.sweepStalled(now)
	}
	// An orphan saves a second run. That isn't worth it if other messages need the memory.
	for len(in.orphans) > 0 && (now.Sub(in.orphans[0].arrived) > 2*in.lanes.deadline || len(in.orphans) > 2*in.lanes.window || in.inFlight.Full()) {
		in.releaseBytes(in.orphans[0])
		in.orphans[0] = nil
		in.orphans = in.orphans[1:]
	}
	in.metrics.waiting.Set(float64(in.lanes.waiting))
	in.metrics.running.Set(float64(len(in.active)))
	in.startRuns()
	giveBack := late && in.source.Broker && in.subscriber != nil && !in.stopping
	in.mu.Unlock()
	if giveBack {
		in.giveBack()
	}
}

// giveBack ends the subscription, so that the broker redelivers the unsettled messages. Runs go
// on, and the redelivered messages take them over. The intake does this only at the ack deadline,
// and never because of a long pause: the broker may count redeliveries, and drop a message at its
// delivery limit.
func (in *intake) giveBack() {
	in.mu.Lock()
	sub := in.subscriber
	if in.stopping || sub == nil {
		in.mu.Unlock()
		return
	}
	in.subscriber = nil
	in.givingBack = true
	for e := range in.active {
		e.keptRun = fromSource(e) && (e.keptRun || !e.isVoid())
	}
	for _, e := range in.lanes.dropUnstarted(fromSource) {
		in.markDropped(e) // the end of the subscription makes its delivery void
	}
	in.mu.Unlock()
	in.log.Warn("messages are unsettled for longer than ack_deadline; subscribing again", "ack_deadline", in.lanes.deadline)
	if err := sub.Close(); err != nil {
		in.log.Warn("closing the subscription", "err", err)
	}
}
