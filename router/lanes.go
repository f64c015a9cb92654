package router

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
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

	byKey map[laneKey]*lane
	ready []*lane
	// refused wait to be started out of turn.
	refused []*entry
	// void are entries that were dropped because their delivery is void; the intake takes them from here.
	void    []*entry
	waiting int // unstarted entries, without refused ones
	running int // started and not settled
	arrived uint64
}

// limitShare is the part of the window that a key's limit is, unless it is configured.
const limitShare = 16

// laneKey names a lane: a key, what held messages await, or the number of a message that has a lane of its own, as it couldn't be described or
// asks for no order.
type laneKey struct {
	key  string
	held bool
	own  uint64
}

// lane is the order of one key.
type lane struct {
	key     laneKey
	waiting []*entry
	holder  *entry   // runs and has no place of its own yet
	placed  []*entry // run in the handler's order, oldest first
	aside   int      // run out of turn, as refusals
	nacked  []*entry // to be run again when holder and placed are gone
	queued  bool     // is in lanes.ready
	movedAt time.Time
	room    [2]*entry // where waiting and placed begin: most lanes have one message at a time
}

// entry is one message that is to be handled. It owns the delivery; the chain has a message of its own for each run.
type entry struct {
	// delivery is the one that counts: a redelivered copy may have taken the place of the first. It is guarded by the
	// intake's lock.
	delivery *transports.Delivery
	// message is for the first run; it was made to be described.
	message *message.Message
	desc    handlers.Description
	resumed *resumed // how it came back, if it was held; otherwise nil
	// abandoned says that the source didn't redeliver the message: see abandoned.go.
	abandoned bool
	lane      *lane
	number    uint64
	arrived   time.Time
	state     entryState
	reason    handlers.Reason // why it is refused, if it is
	// publishing: the chain has returned and the outputs wait for confirms.
	publishing bool
	run        *run
	// size is how many bytes of the budget the message takes, and outputs how many those of its run
	// take until they are confirmed.
	size, outputs int
	// kept: the delivery is void but the run goes on; a redelivered copy takes it over.
	kept bool
	// Guarded by the mutex of holds: the queue that the message may be held in, whether that is left
	// from a run that ended and is made again, and what it is held as.
	undecidedFor string
	rerun        bool
	held         *handlers.Held
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
		limit = max(window/limitShare, 1)
	}
	return &lanes{
		window: window, limit: limit, refusable: refusable, stall: c.Stall, deadline: c.AckDeadline,
		byKey: map[laneKey]*lane{},
	}
}

// add takes a message in. With own it has a lane of its own, as one that couldn't be described.
func (l *lanes) add(e *entry, own bool, now time.Time) {
	l.arrived++
	e.number, e.arrived, e.state = l.arrived, now, waiting
	key := laneKey{key: e.desc.Key}
	switch {
	case own:
		key = laneKey{own: e.number}
	case e.resumed != nil:
		key = laneKey{key: e.resumed.Awaits, held: true}
	}
	ln := l.byKey[key]
	if ln == nil {
		ln = &lane{key: key, movedAt: now}
		ln.waiting, ln.placed = ln.room[0:0:1], ln.room[1:1:2]
		l.byKey[key] = ln
	}
	e.lane = ln
	ln.wait(e)
	l.waiting++
	if l.refusable && !key.held && len(ln.waiting) > l.limit && ln.stalled(now, l.patience(ln)) {
		l.refuseAbove(ln, l.limit)
	}
	l.schedule(ln)
}

// addAbandoned takes in a message that needs only the ledger. It has a lane of its own, and starts
// out of turn, as a refusal does.
func (l *lanes) addAbandoned(e *entry, now time.Time) {
	l.add(e, true, now)
	l.refuse(e.lane, handlers.ReasonAbandoned, everything)
}

// schedule puts a lane that may start a message into the ready list.
func (l *lanes) schedule(ln *lane) {
	if len(ln.nacked) > 0 && ln.holder == nil && len(ln.placed) == 0 {
		l.waiting += len(ln.nacked)
		ln.waiting = append(ln.nacked, ln.waiting...)
		ln.nacked = nil
		slices.SortFunc(ln.waiting, inOrder)
	}
	if !ln.queued && l.startable(ln) {
		ln.queued = true
		l.ready = append(l.ready, ln)
	}
	if ln.idle() {
		delete(l.byKey, ln.key)
	}
}

// inOrder compares entries of a lane by when they are to start.
func inOrder(a, b *entry) int {
	return cmp.Or(cmp.Compare(b.desc.Priority, a.desc.Priority), cmp.Compare(a.number, b.number))
}

// wait puts an entry that arrives among those that wait.
func (ln *lane) wait(e *entry) {
	at := len(ln.waiting)
	for at > 0 && ln.waiting[at-1].desc.Priority < e.desc.Priority {
		at--
	}
	ln.waiting = slices.Insert(ln.waiting, at, e)
}

func (l *lanes) startable(ln *lane) bool {
	if ln.holder != nil || len(ln.nacked) > 0 || len(ln.waiting) == 0 {
		return false
	}
	room := l.limit
	if ln.waiting[0].desc.Priority > 0 {
		room *= 2 // it is to overtake those that are placed, so it may not wait for them
	}
	return len(ln.placed) < room
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
			l.void = append(l.void, e)
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
		l.void = append(l.void, e)
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

// refuse takes the lane's unstarted entries for which it is time out of their turn.
func (l *lanes) refuse(ln *lane, reason handlers.Reason, time func(*entry) bool) {
	ln.waiting = slices.DeleteFunc(ln.waiting, func(e *entry) bool {
		if !time(e) {
			return false
		}
		e.state, e.reason = refusing, reason
		l.refused = append(l.refused, e)
		l.waiting--
		ln.aside++
		return true
	})
}

// refuseAbove refuses all of a stalled lane's unstarted entries but the first ones.
func (l *lanes) refuseAbove(ln *lane, keep int) {
	l.refuse(ln, handlers.ReasonStalled, func(*entry) bool {
		keep--
		return keep < 0
	})
}

// stalled reports whether the lane's first message stands for too long. Waiting for a confirm is not the key's fault.
func (ln *lane) stalled(now time.Time, stall time.Duration) bool {
	head := ln.holder
	if len(ln.placed) > 0 {
		head = ln.placed[0]
	}
	return head != nil && !head.publishing && now.Sub(ln.movedAt) >= stall
}

// patience is how long a lane's first message may stand. A lane that holds more than it may when it is stalled has little while the window
// fills up: what it takes of it the other keys lack, and what stays unacked makes each of their acks dearer.
func (l *lanes) patience(ln *lane) time.Duration {
	if len(ln.waiting)+len(ln.placed) > 2*l.limit && l.waiting+l.running+len(l.refused) >= l.window/2 {
		return l.stall / 10
	}
	return l.stall
}

// resume starts the stall times of all keys anew: they stood because the pipeline was paused.
func (l *lanes) resume(now time.Time) {
	for _, ln := range l.byKey {
		ln.movedAt = now
	}
}

// sweep forgets unstarted entries whose delivery is void and refuses what stalled keys hold.
func (l *lanes) sweep(now time.Time) {
	held := 0
	var stuck []*lane
	for _, ln := range l.byKey {
		l.void = l.drop(ln, (*entry).void, l.void)
		if !ln.key.held && ln.stalled(now, l.patience(ln)) {
			stuck = append(stuck, ln)
			held += len(ln.waiting) + len(ln.placed) + 1
		}
		l.schedule(ln)
	}
	if !l.refusable {
		return
	}
	keep := l.limit
	if held >= max(l.window/2, 1) {
		keep = 0
	}
	for _, ln := range stuck {
		l.refuseAbove(ln, keep)
	}
}

// overdue refuses unstarted entries that are older than the ack deadline, and reports whether there are some that the handler can't
// refuse.
func (l *lanes) overdue(now time.Time) bool {
	old := func(e *entry) bool { return e.overdue(now, l.deadline) }
	late := false
	for _, ln := range l.byKey {
		late = late || slices.ContainsFunc(ln.nacked, old)
		if l.refusable {
			l.refuse(ln, handlers.ReasonAckDeadline, old)
		} else {
			late = late || slices.ContainsFunc(ln.waiting, old)
		}
	}
	return late
}

// overdue reports whether the entry's delivery stands unsettled for longer than the ack deadline.
func (e *entry) overdue(now time.Time, deadline time.Duration) bool {
	return !e.kept && delivered(e) && now.Sub(e.arrived) >= deadline && !e.void()
}

// each calls f for every entry that isn't settled.
func (l *lanes) each(f func(*entry)) {
	look := func(all ...*entry) {
		for _, e := range all {
			if e != nil {
				f(e)
			}
		}
	}
	look(l.refused...)
	for _, ln := range l.byKey {
		look(ln.holder)
		look(ln.waiting...)
		look(ln.placed...)
		look(ln.nacked...)
	}
}

// unstarted reports whether anything is still to be started.
func (l *lanes) unstarted() bool {
	for _, ln := range l.byKey {
		if len(ln.nacked) > 0 {
			return true
		}
	}
	return l.waiting > 0 || len(l.refused) > 0
}

// forget drops unstarted entries and returns them: all at a stop, those of the source when its channel is given back.
func (l *lanes) forget(gone func(*entry) bool) []*entry {
	var dropped []*entry
	l.refused = slices.DeleteFunc(l.refused, func(e *entry) bool {
		if !gone(e) {
			return false
		}
		e.lane.aside--
		dropped = append(dropped, e)
		return true
	})
	for _, ln := range l.byKey {
		dropped = l.drop(ln, gone, dropped)
		l.schedule(ln)
	}
	return dropped
}

// drop takes the unstarted entries that match out of a lane, and appends them to dropped.
func (l *lanes) drop(ln *lane, match func(*entry) bool, dropped []*entry) []*entry {
	matches := func(e *entry) bool {
		if !match(e) {
			return false
		}
		dropped = append(dropped, e)
		return true
	}
	before := len(ln.waiting)
	ln.waiting, ln.nacked = slices.DeleteFunc(ln.waiting, matches), slices.DeleteFunc(ln.nacked, matches)
	l.waiting -= before - len(ln.waiting)
	return dropped
}

// everything and delivered say which entries are dropped: all, or those that the source
// redelivers.
func everything(*entry) bool  { return true }
func delivered(e *entry) bool { return e.resumed == nil && !e.abandoned }

// logger names the message in what is logged: by its id, or by msg's UUID if nobody gave it one, and by the trace it belongs to.
func (e *entry) logger(log *slog.Logger, msg *message.Message) *slog.Logger {
	log = transports.Traced(log, msg.Metadata)
	if e.desc.ID != "" {
		return log.With("id", e.desc.ID)
	}
	return log.With("uuid", msg.UUID)
}

// void reports whether the entry's delivery no longer exists.
func (e *entry) void() bool { return e.delivery.Context.Err() != nil }
