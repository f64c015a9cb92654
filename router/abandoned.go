package router

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// abandoned finds the messages that the source of an intake has to redeliver and doesn't. A source
// redelivers a message until it is acked, unless the message is lost: it expires, is purged, is
// deleted with its queue, or was delivered too often. If a run of it had begun, its result would
// never be published. So after a time the intake takes such a message from the ledger instead.
type abandoned struct {
	pipeline string
	ledger   middleware.Ledger
	// after is how long the source may take to redeliver. interval is the time between two checks.
	after, interval time.Duration

	// clock is the time in which the source could have delivered: the pipeline had a consumer, and
	// fewer unsettled messages than the source hands out. present is handlers.Source.Present at
	// the last check.
	clock, present time.Duration
	// since is when each message was first missing, on the clock.
	since map[middleware.LedgerKey]time.Duration
}

// shortestCheck and longestCheck bound abandoned.interval.
const (
	shortestCheck = 50 * time.Millisecond
	longestCheck  = 10 * time.Second
)

func newAbandoned(pipeline string, ledger middleware.Ledger, after time.Duration) *abandoned {
	return &abandoned{
		pipeline: pipeline, ledger: ledger, after: after, interval: min(max(after/20, shortestCheck), longestCheck),
		since: map[middleware.LedgerKey]time.Duration{},
	}
}

// resumeAbandoned takes abandoned messages in until the intake closes.
func (in *intake) resumeAbandoned() {
	ticker := time.NewTicker(in.abandoned.interval)
	defer ticker.Stop()
	for {
		select {
		case <-in.closed:
			return
		case <-ticker.C:
			in.checkAbandoned()
		}
	}
}

// checkAbandoned takes in the messages that the source had enough time to redeliver. An orphan
// needs no run: its results are published, and only its answer waits for the redelivered message.
func (in *intake) checkAbandoned() {
	a := in.abandoned
	a.advanceClock(in.sourceState(time.Now()))
	missing := a.ledger.Unconfirmed(a.pipeline)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping || isClosed(in.ending) {
		return
	}
	since := a.since
	a.since = map[middleware.LedgerKey]time.Duration{}
	late := func(key middleware.LedgerKey) bool {
		first, ok := since[key]
		if !ok {
			first = a.clock
		}
		if a.clock-first >= a.after {
			return true
		}
		a.since[key] = first
		return false
	}
	in.orphans = slices.DeleteFunc(in.orphans, func(e *entry) bool {
		if !late(a.ledgerKey(e)) {
			return false
		}
		in.sendOutcome(e.delivery.Metadata, &e.run.outcome)
		in.releaseBytes(e)
		return true
	})
	if len(missing) == 0 {
		return
	}
	here := in.keysInPipeline()
	missing = slices.DeleteFunc(missing, func(m middleware.Unconfirmed) bool {
		_, ok := here[m.Key]
		return ok || !late(m.Key)
	})
	if len(missing) == 0 {
		return
	}
	in.log.Warn("messages that had begun weren't redelivered; publishing their results from the ledger", "messages", len(missing), "first", missing[0].Key.ID)
	in.metrics.abandoned.Add(float64(len(missing)))
	for _, m := range missing {
		d := in.ledgerDelivery(m.Origin.UUID, nil, m.Origin.Metadata())
		in.lanes.addAbandoned(&entry{
			delivery: d, message: d.Message(), abandoned: true,
			desc: handlers.Description{Key: m.Key.Device, ID: m.Key.ID, Keep: m.Origin.Keep},
		}, time.Now())
	}
	in.startRuns()
}

func (a *abandoned) ledgerKey(e *entry) middleware.LedgerKey {
	return middleware.LedgerKey{Pipeline: a.pipeline, ID: e.desc.ID, Device: e.desc.Key}
}

// here returns the messages that are waiting or running. The lock is held.
func (in *intake) keysInPipeline() map[middleware.LedgerKey]struct{} {
	all := map[middleware.LedgerKey]struct{}{}
	add := func(e *entry) { all[in.abandoned.ledgerKey(e)] = struct{}{} }
	in.lanes.eachUnsettled(add)
	for e := range in.active {
		add(e) // refusals aren't in the lanes
	}
	return all
}

// advance counts the time in which the source could have delivered.
func (a *abandoned) advanceClock(s handlers.Source) {
	if !s.Full {
		a.clock += s.Present - a.present
	}
	a.present = s.Present
}
