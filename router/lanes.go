package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

// lanes decide which message may start: one of a key runs until it is settled, or until the handler has given it a place in an
// order of its own; other keys run beside it. It is a state machine without goroutines, locks or clocks of its own: the
// intake holds the lock and tells the time.
type lanes struct {
	window    int  // most unsettled messages of the source
	limit     int  // most placed messages of a key, and most unstarted ones of a stalled key
	refusable bool // the handler can refuse
	stall     time.Duration
	deadline  time.Duration

	byKey map[string]*lane
	ready []*lane
	// refused wait to be emitted out of turn.
	refused []*entry
	waiting int // unstarted entries, without refused ones
	running int // emitted and not settled
	arrived uint64
}

// lane is the order of one key.
type lane struct {
	key     string
	waiting []*entry
	holder  *entry   // runs and has no place of its own yet
	placed  []*entry // run in the handler's order, oldest first
	aside   int      // run out of turn, as refusals
	nacked  []*entry // to be run again when holder and placed are gone
	queued  bool     // is in lanes.ready
	movedAt time.Time
}

// entry is one delivered message.
type entry struct {
	msg     *message.Message
	desc    handlers.Description
	lane    *lane
	number  uint64
	arrived time.Time
	state   entryState
	reason  handlers.Reason // why it is refused, if it is
	// publishing: the chain has returned and the outputs wait for confirms.
	publishing bool
	run        *run
	// kept: the delivery is void but the run goes on; a redelivered copy takes it over.
	kept bool
}

type entryState int

const (
	waiting entryState = iota
	refusing
	holding
	placed
	settled
)

func newLanes(window int, c Lanes, refusable bool) *lanes {
	limit := c.Limit
	if limit == 0 {
		limit = max(window/8, 1)
	}
	return &lanes{
		window: window, limit: limit, refusable: refusable, stall: c.Stall, deadline: c.AckDeadline,
		byKey: map[string]*lane{},
	}
}

// add takes a message in. An entry that couldn't be described (own) has a lane of its own.
func (l *lanes) add(e *entry, own bool, now time.Time) {
	l.arrived++
	e.number, e.arrived, e.state = l.arrived, now, waiting
	ln := l.byKey[e.desc.Key]
	if own || ln == nil {
		ln = &lane{key: e.desc.Key, movedAt: now}
		if !own {
			l.byKey[e.desc.Key] = ln
		}
	}
	e.lane = ln
	ln.waiting = append(ln.waiting, e)
	l.waiting++
	if l.refusable && len(ln.waiting) > l.limit && ln.stalled(now, l.stall) {
		l.refuse(ln, l.limit, len(ln.waiting), handlers.ReasonStalled)
	}
	l.schedule(ln)
}

// schedule puts a lane that may start a message into the ready list.
func (l *lanes) schedule(ln *lane) {
	if len(ln.nacked) > 0 && ln.holder == nil && len(ln.placed) == 0 {
		slices.SortFunc(ln.nacked, func(a, b *entry) int { return cmp.Compare(a.number, b.number) })
		l.waiting += len(ln.nacked)
		ln.waiting = append(ln.nacked, ln.waiting...)
		ln.nacked = nil
	}
	if !ln.queued && l.startable(ln) {
		ln.queued = true
		l.ready = append(l.ready, ln)
	}
	if ln.idle() && l.byKey[ln.key] == ln {
		delete(l.byKey, ln.key)
	}
}

func (l *lanes) startable(ln *lane) bool {
	return ln.holder == nil && len(ln.nacked) == 0 && len(ln.placed) < l.limit && len(ln.waiting) > 0
}

func (ln *lane) idle() bool {
	return ln.holder == nil && len(ln.placed) == 0 && len(ln.waiting) == 0 && len(ln.nacked) == 0 && ln.aside == 0
}

// next starts a message, refusals first. It returns nil if none may start.
func (l *lanes) next(now time.Time) *entry {
	if e := l.nextRefused(); e != nil {
		return e
	}
	for len(l.ready) > 0 {
		ln := l.ready[0]
		l.ready = l.ready[1:]
		ln.queued = false
		if !l.startable(ln) {
			continue
		}
		e := ln.waiting[0]
		ln.waiting[0] = nil
		ln.waiting = ln.waiting[1:]
		l.waiting--
		if e.void() {
			l.schedule(ln)
			continue
		}
		if len(ln.placed) == 0 {
			ln.movedAt = now
		}
		e.state = holding
		ln.holder = e
		l.running++
		return e
	}
	return nil
}

// nextRefused starts a refusal. It returns nil if there is none.
func (l *lanes) nextRefused() *entry {
	for len(l.refused) > 0 {
		e := l.refused[0]
		l.refused = l.refused[1:]
		if !e.void() {
			l.running++
			return e
		}
		e.lane.aside--
		l.schedule(e.lane)
	}
	return nil
}

// place gives the lane free: the entry has its place in the handler's order.
func (l *lanes) place(e *entry) {
	if e.state != holding {
		return
	}
	e.state = placed
	e.lane.holder = nil
	e.lane.placed = append(e.lane.placed, e)
	l.schedule(e.lane)
}

// settle ends a run. With again the entry goes back to be run once more, in arrival order.
func (l *lanes) settle(e *entry, again bool, now time.Time) {
	ln := e.lane
	switch e.state {
	case holding:
		ln.holder, ln.movedAt = nil, now
	case placed:
		ln.movedAt = now
		if i := slices.Index(ln.placed, e); i >= 0 {
			ln.placed = slices.Delete(ln.placed, i, i+1)
		}
	case refusing:
		ln.aside--
	default:
		return
	}
	l.running--
	e.publishing = false
	if again {
		e.state = waiting
		e.reason = ""
		ln.nacked = append(ln.nacked, e)
	} else {
		e.state = settled
	}
	l.schedule(ln)
}

// refuse takes the lane's unstarted entries from index from up to index to out of their turn.
func (l *lanes) refuse(ln *lane, from, to int, reason handlers.Reason) {
	for _, e := range ln.waiting[from:to] {
		e.state, e.reason = refusing, reason
		l.refused = append(l.refused, e)
		l.waiting--
		ln.aside++
	}
	ln.waiting = slices.Delete(ln.waiting, from, to)
}

// stalled reports whether the lane's first message stands for too long. Waiting for a confirm is not the key's fault.
func (ln *lane) stalled(now time.Time, stall time.Duration) bool {
	head := ln.holder
	if len(ln.placed) > 0 {
		head = ln.placed[0]
	}
	return head != nil && !head.publishing && now.Sub(ln.movedAt) >= stall
}

// resume starts the stall times of all keys anew: they stood because the pipeline was paused.
func (l *lanes) resume(now time.Time) {
	l.all(func(ln *lane) { ln.movedAt = now })
}

// all calls f for every lane, those of undescribable messages excepted: these hold one message each.
func (l *lanes) all(f func(*lane)) {
	for _, ln := range l.byKey {
		f(ln)
	}
}

// sweep forgets unstarted entries whose delivery is void and refuses what stalled keys hold.
func (l *lanes) sweep(now time.Time) {
	held := 0
	var stuck []*lane
	l.all(func(ln *lane) {
		before := len(ln.waiting)
		ln.waiting = slices.DeleteFunc(ln.waiting, (*entry).void)
		l.waiting -= before - len(ln.waiting)
		ln.nacked = slices.DeleteFunc(ln.nacked, (*entry).void)
		if ln.stalled(now, l.stall) {
			stuck = append(stuck, ln)
			held += len(ln.waiting) + len(ln.placed) + 1
		}
		l.schedule(ln)
	})
	if !l.refusable {
		return
	}
	for _, ln := range stuck {
		switch {
		case held >= max(l.window/2, 1) && len(ln.waiting) > 0:
			l.refuse(ln, 0, len(ln.waiting), handlers.ReasonStalled)
		case len(ln.waiting) > l.limit:
			l.refuse(ln, l.limit, len(ln.waiting), handlers.ReasonStalled)
		}
	}
}

// overdue refuses unstarted entries that are older than the ack deadline, and reports whether others are: started ones, or
// ones that the handler can't refuse.
func (l *lanes) overdue(now time.Time) bool {
	old := func(e *entry) bool { return !e.kept && !e.void() && now.Sub(e.arrived) >= l.deadline }
	late := false
	l.all(func(ln *lane) {
		late = late || ln.holder != nil && old(ln.holder) || slices.ContainsFunc(ln.placed, old)
		// Waiting entries are in arrival order, so the old ones come first.
		n := slices.IndexFunc(ln.waiting, func(e *entry) bool { return !old(e) })
		if n < 0 {
			n = len(ln.waiting)
		}
		if l.refusable {
			l.refuse(ln, 0, n, handlers.ReasonAckDeadline)
		} else {
			late = late || n > 0
		}
	})
	return late
}

// nacked reports whether a run waits to be started again behind others of its key.
func (l *lanes) nacked() bool {
	for _, ln := range l.byKey {
		if len(ln.nacked) > 0 {
			return true
		}
	}
	return false
}

// forget drops every unstarted entry and returns them: a stop, or a channel that is given back.
func (l *lanes) forget() []*entry {
	var dropped []*entry
	l.all(func(ln *lane) {
		dropped = append(dropped, ln.waiting...)
		dropped = append(dropped, ln.nacked...)
		ln.waiting, ln.nacked = nil, nil
	})
	for _, ln := range l.ready {
		ln.queued = false
		dropped = append(dropped, ln.waiting...) // a lane of its own
		ln.waiting = nil
	}
	l.ready = nil
	for _, e := range l.refused {
		e.lane.aside--
		dropped = append(dropped, e)
	}
	l.refused, l.waiting = nil, 0
	for _, ln := range l.byKey {
		l.schedule(ln)
	}
	return dropped
}

// void reports whether the entry's delivery no longer exists.
func (e *entry) void() bool { return e.msg.Context().Err() != nil }
