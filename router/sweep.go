package router

import (
	"time"
)

// sweepInterval is how often stalls, deadlines and void deliveries are looked for; it bounds how
// late they are noticed.
const sweepInterval = 250 * time.Millisecond

// sweep looks at the times of waiting messages.
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

func (in *intake) sweepOnce(now time.Time) {
	in.mu.Lock()
	late := in.lanes.refuseOverdue(now)
	for e := range in.active {
		late = late || e.isOverdue(now, in.lanes.deadline)
	}
	if !in.pause.isOn() {
		in.lanes.sweepStalled(now)
	}
	for len(in.orphans) > 0 && (now.Sub(in.orphans[0].arrived) > 2*in.lanes.deadline || len(in.orphans) > 2*in.lanes.window) {
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

// giveBack ends the subscription so that the broker gets back what wasn't settled. Started
// messages go on; their redelivered copies take their outcome over. Only ack_deadline is a reason
// for it, a long pause isn't: the broker may count each redelivery, and lose a message at its
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
		in.markDropped(e) // closing the subscription hands its delivery back
	}
	in.mu.Unlock()
	in.log.Warn("messages stand longer than they may stay unsettled; giving the subscription back", "ack_deadline", in.lanes.deadline)
	if err := sub.Close(); err != nil {
		in.log.Warn("closing the subscription", "err", err)
	}
}
