package router

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// abandoned is the third source of an intake. A source delivers a message again until it is acked,
// unless it loses the message: that expires, is purged, is deleted with its queue, or has been
// delivered too often. If a run of such a message had begun, its result would never be published.
// So what the source doesn't deliver again, although it could, is brought back from the ledger.
type abandoned struct {
	pipeline string
	ledger   middleware.Ledger
	// after is how long the source may take. interval is how often it is looked.
	after, interval time.Duration

	// clock is for how long the source could have delivered. It is that of present without the time
	// in which as many messages were unsettled as the source hands out.
	clock, present time.Duration
	// since is when each message was seen first, on the clock.
	since map[middleware.LedgerKey]time.Duration
}

// longestLook and shortestLook bound abandoned.interval.
const (
	longestLook  = 10 * time.Second
	shortestLook = 50 * time.Millisecond
)

func newAbandoned(pipeline string, ledger middleware.Ledger, after time.Duration) *abandoned {
	return &abandoned{
		pipeline: pipeline, ledger: ledger, after: after, interval: min(max(after/20, shortestLook), longestLook),
		since: map[middleware.LedgerKey]time.Duration{},
	}
}

// lookForAbandoned brings messages back until the intake closes.
func (in *intake) lookForAbandoned() {
	ticker := time.NewTicker(in.abandoned.interval)
	defer ticker.Stop()
	for {
		select {
		case <-in.closed:
			return
		case <-ticker.C:
			in.bringAbandoned()
		}
	}
}

// bringAbandoned brings back what the source had time enough to deliver. A message of which a run
// ended needs no other run: only its answer is sent, for which its copy was waited for.
func (in *intake) bringAbandoned() {
	a := in.abandoned
	a.advance(in.stands(time.Now()))
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
		if !late(a.key(e)) {
			return false
		}
		in.answer(e.delivery.Metadata, &e.run.outcome)
		return true
	})
	here := in.here(len(missing))
	missing = slices.DeleteFunc(missing, func(m middleware.Unconfirmed) bool {
		_, ok := here[m.Key]
		return ok || !late(m.Key)
	})
	if len(missing) == 0 {
		return
	}
	in.log.Warn("messages that had begun weren't delivered again; their results are published without them", "messages", len(missing), "first", missing[0].Key.ID)
	in.metrics.abandoned.Add(float64(len(missing)))
	for _, m := range missing {
		d := in.deliver(m.Origin.UUID, nil, m.Origin.Metadata())
		in.lanes.addAside(&entry{
			delivery: d, message: d.Message(), abandoned: true,
			desc: handlers.Description{Key: m.Key.Device, ID: m.Key.ID, Keep: m.Origin.Keep},
		}, time.Now())
	}
	in.startRuns()
}

func (a *abandoned) key(e *entry) middleware.LedgerKey {
	return middleware.LedgerKey{Pipeline: a.pipeline, ID: e.desc.ID, Device: e.desc.Key}
}

// here returns the messages with an id that are waiting or running; nil if the caller misses none.
// The lock is held.
func (in *intake) here(missing int) map[middleware.LedgerKey]struct{} {
	if missing == 0 {
		return nil
	}
	all := map[middleware.LedgerKey]struct{}{}
	add := func(e *entry) { all[in.abandoned.key(e)] = struct{}{} }
	in.lanes.each(add)
	for e := range in.active {
		add(e) // refusals aren't in the lanes
	}
	return all
}

// advance counts the time in which the source could have delivered.
func (a *abandoned) advance(s handlers.Source) {
	if !s.Full {
		a.clock += s.Present - a.present
	}
	a.present = s.Present
}
