package router

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// abandoned finds messages that the source should have redelivered and didn't. Normally a broker
// redelivers a message until it is acked. But the message can expire there, be purged, be deleted
// with its queue, or reach the delivery limit. If such a message has begun, nobody would ever
// publish its result. So after a time the intake adds an entry for it, and publishes the result
// that the ledger knows.
type abandoned struct {
	pipeline string
	ledger   middleware.Ledger
	// after is how long the source has to redeliver a message. interval is the time between
	// checks.
	after, interval time.Duration

	// clock counts the time in which the source could deliver: the pipeline had a consumer, and
	// its window wasn't full. present is handlers.Source.Present at the last check.
	clock, present time.Duration
	// since has the clock's time at which each message was first missing.
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

// resumeAbandoned looks for abandoned messages until the intake closes. It is a goroutine.
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

// checkAbandoned adds an entry for each message that the source had enough time to redeliver, but
// didn't. An orphan gets no entry, since its outputs are published already. checkAbandoned sends
// the orphan's outcome to its reply_to, and forgets the orphan.
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
	here := in.ledgerKeys()
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

// ledgerKey returns the key of an entry's record in the ledger.
func (a *abandoned) ledgerKey(e *entry) middleware.LedgerKey {
	return middleware.LedgerKey{Pipeline: a.pipeline, ID: e.desc.ID, Device: e.desc.Key}
}

// ledgerKeys returns the keys of all unsettled entries. The caller has the lock.
func (in *intake) ledgerKeys() map[middleware.LedgerKey]struct{} {
	all := map[middleware.LedgerKey]struct{}{}
	add := func(e *entry) { all[in.abandoned.ledgerKey(e)] = struct{}{} }
	in.lanes.eachUnsettled(add)
	for e := range in.active {
		add(e) // a refused entry that has started is in none of the lanes' lists
	}
	return all
}

// advanceClock adds the time since the last check to the clock, if the source could deliver during
// that time.
func (a *abandoned) advanceClock(s handlers.Source) {
	if !s.Full {
		a.clock += s.Present - a.present
	}
	a.present = s.Present
}
