package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
)

// lanes decides which message starts next.
//
// The idea: messages of one key start in order, and messages of different keys run at the same
// time. Each key has a lane. An entry of a lane is in one of the following states:
//
//	stateWaiting  in lane.waiting; or in lane.reruns, if an earlier run ended without an outcome
//	stateCurrent  is lane.current: it runs, and the lane starts no other entry
//	statePlaced   in lane.placed: it runs, and the handler keeps the order now (handlers.Enqueued)
//	stateRefused  in lanes.refused until it starts, then in no list; its run only refuses it
//	stateSettled  in no list
//
// These methods move an entry from state to state:
//
//	startNext                                     waiting to current
//	markPlaced                                    current to placed
//	sweepStalled, refuseOverdue, addAbandoned     waiting to refused
//	endRun                                        current, placed or refused to waiting or settled
//
// The invariants: a lane has at most one current entry. A lane with entries in reruns starts no
// waiting entry. When it has no current and no placed entry any more, the reruns go back to
// waiting, in their order. So a rerun starts before newer messages of its key, and after older
// ones.
//
// A lane is stalled if its first running entry hasn't moved for the stall time. The waiting
// entries of such a lane could fill the window, and then messages of other keys couldn't arrive.
// So the lanes refuse most of them, if the handler can refuse messages. A refusal starts at once:
// it waits for no other entry.
//
// lanes has no goroutines, locks or clocks. The lock of the intake guards it, and its methods
// receive the time.
type lanes struct {
	window    int  // how many unsettled messages the source allows
	refusable bool // the handler can refuse messages
	// limit is how many placed entries a lane may have. It is also how many waiting entries a
	// stalled lane may have.
	limit    int
	stall    time.Duration
	deadline time.Duration // the ack deadline

	byKey map[laneKey]*lane
	ready []*lane // lanes that may have an entry to start
	// refused has the refused entries that haven't started yet.
	refused []*entry
	// dropped has entries that were dropped because their delivery is void. The intake empties it.
	dropped []*entry
	waiting int // how many entries are in lane.waiting of all lanes
	running int // how many entries have started and aren't settled
	arrived uint64
}

// limitShare determines the default limit: the window divided by limitShare.
const limitShare = 16

// laneKey identifies a lane.
type laneKey struct {
	// key is the key of the lane's messages. In a lane of released messages, key is the name that
	// they awaited.
	key      string
	released bool // the lane is for released messages
	// own is the number of an entry that has a lane for itself, because it needs no order or
	// couldn't be described. Other lanes have 0.
	own uint64
}

// lane has the entries of one key.
type lane struct {
	key      laneKey
	waiting  []*entry // in the order in which they start
	current  *entry
	placed   []*entry // oldest first
	refusals int      // how many of its entries are refused and not settled
	reruns   []*entry // wait until current and placed are empty
	listed   bool     // the lane is in lanes.ready
	// movedAt is when the lane last moved: when a run of an entry ended, or when an entry started
	// while no entry was placed.
	movedAt time.Time
	// array is the first memory of waiting and placed. It saves allocations: most lanes have one
	// message at a time.
	array [2]*entry
}

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

// addEntry adds an entry to its lane. If own is true, the entry gets a lane for itself.
func (l *lanes) addEntry(e *entry, own bool, now time.Time) {
	l.arrived++
	e.number, e.arrived, e.state = l.arrived, now, stateWaiting
	key := laneKey{key: e.desc.Key}
	switch {
	case own:
		key = laneKey{own: e.number}
	case e.released != nil:
		key = laneKey{key: e.released.Awaits, released: true}
	}
	ln := l.byKey[key]
	if ln == nil {
		ln = &lane{key: key, movedAt: now}
		ln.waiting, ln.placed = ln.array[0:0:1], ln.array[1:1:2]
		l.byKey[key] = ln
	}
	e.lane = ln
	ln.insertWaiting(e)
	l.waiting++
	if l.refusable && !key.released && len(ln.waiting) > l.limit && ln.isStalled(now, l.stallTime(ln)) {
		l.refuseAbove(ln, l.limit)
	}
	l.scheduleLane(ln)
}

// addAbandoned adds the entry of an abandoned message. It starts at once, as a refusal does, since
// its run needs nothing but the ledger.
func (l *lanes) addAbandoned(e *entry, now time.Time) {
	l.addEntry(e, true, now)
	l.refuseWaiting(e.lane, handlers.ReasonAbandoned, anyEntry)
}

// scheduleLane lists a lane in ready if it can start an entry, and deletes it if it is empty.
// Every change of a lane ends with scheduleLane.
func (l *lanes) scheduleLane(ln *lane) {
	if len(ln.reruns) > 0 && ln.current == nil && len(ln.placed) == 0 {
		l.waiting += len(ln.reruns)
		ln.waiting = append(ln.reruns, ln.waiting...)
		ln.reruns = nil
		slices.SortFunc(ln.waiting, inOrder)
	}
	if !ln.listed && l.canStart(ln) {
		ln.listed = true
		l.ready = append(l.ready, ln)
	}
	if ln.isEmpty() {
		delete(l.byKey, ln.key)
	}
}

// inOrder compares entries of a lane by the order in which they start.
func inOrder(a, b *entry) int {
	return cmp.Or(cmp.Compare(b.desc.Priority, a.desc.Priority), cmp.Compare(a.number, b.number))
}

// insertWaiting adds an entry to waiting, behind all entries of the same or a higher priority.
func (ln *lane) insertWaiting(e *entry) {
	at := len(ln.waiting)
	for at > 0 && ln.waiting[at-1].desc.Priority < e.desc.Priority {
		at--
	}
	ln.waiting = slices.Insert(ln.waiting, at, e)
}

// canStart reports whether the lane's first waiting entry can start.
func (l *lanes) canStart(ln *lane) bool {
	if ln.current != nil || len(ln.reruns) > 0 || len(ln.waiting) == 0 {
		return false
	}
	room := l.limit
	if ln.waiting[0].desc.Priority > 0 {
		// Such an entry overtakes placed entries, so it mustn't wait until they end.
		room *= 2
	}
	return len(ln.placed) < room
}

// isEmpty reports whether no entry of the lane is unsettled.
func (ln *lane) isEmpty() bool {
	return ln.current == nil && len(ln.placed) == 0 && len(ln.waiting) == 0 && len(ln.reruns) == 0 && ln.refusals == 0
}

// startNext starts an entry and returns it, or nil if none can start. Refusals start first.
func (l *lanes) startNext(now time.Time) *entry {
	if e := l.startRefusal(); e != nil {
		return e
	}
	for len(l.ready) > 0 {
		ln := l.ready[0]
		l.ready = l.ready[1:]
		ln.listed = false
		if !l.canStart(ln) {
			continue
		}
		e := ln.waiting[0]
		ln.waiting[0] = nil
		ln.waiting = ln.waiting[1:]
		l.waiting--
		if e.isVoid() {
			l.dropped = append(l.dropped, e)
			l.scheduleLane(ln)
			continue
		}
		if len(ln.placed) == 0 {
			ln.movedAt = now
		}
		e.state = stateCurrent
		ln.current = e
		l.running++
		return e
	}
	return nil
}

// startRefusal starts a refused entry and returns it, or nil if there is none.
func (l *lanes) startRefusal() *entry {
	for len(l.refused) > 0 {
		e := l.refused[0]
		l.refused = l.refused[1:]
		if !e.isVoid() {
			l.running++
			return e
		}
		l.dropped = append(l.dropped, e)
		e.lane.refusals--
		l.scheduleLane(e.lane)
	}
	return nil
}

// markPlaced records that the entry has its place in the handler's order. The next entry of the
// lane may start.
func (l *lanes) markPlaced(e *entry) {
	if e.state != stateCurrent {
		return
	}
	e.state = statePlaced
	e.lane.current = nil
	e.lane.placed = append(e.lane.placed, e)
	l.scheduleLane(e.lane)
}

// endRun records that the run of an entry has ended. If again is true, the entry waits for another
// run.
func (l *lanes) endRun(e *entry, again bool, now time.Time) {
	ln := e.lane
	switch e.state {
	case stateCurrent:
		ln.current, ln.movedAt = nil, now
	case statePlaced:
		ln.movedAt = now
		if i := slices.Index(ln.placed, e); i >= 0 {
			ln.placed = slices.Delete(ln.placed, i, i+1)
		}
	case stateRefused:
		ln.refusals--
	default:
		return
	}
	l.running--
	e.publishing = false
	if again {
		e.state = stateWaiting
		e.reason = ""
		ln.reruns = append(ln.reruns, e)
	} else {
		e.state = stateSettled
	}
	l.scheduleLane(ln)
}

// refuseWaiting refuses the waiting entries of a lane that match.
func (l *lanes) refuseWaiting(ln *lane, reason handlers.Reason, match func(*entry) bool) {
	ln.waiting = slices.DeleteFunc(ln.waiting, func(e *entry) bool {
		if !match(e) {
			return false
		}
		e.state, e.reason = stateRefused, reason
		l.refused = append(l.refused, e)
		l.waiting--
		ln.refusals++
		return true
	})
}

// refuseAbove refuses the waiting entries of a stalled lane. The first entries stay; keep says how
// many.
func (l *lanes) refuseAbove(ln *lane, keep int) {
	l.refuseWaiting(ln, handlers.ReasonStalled, func(*entry) bool {
		keep--
		return keep < 0
	})
}

// isStalled reports whether the lane's first running entry hasn't moved for the time stall. An
// entry that waits for a confirm doesn't stall its lane: the destination is slow, not the device.
func (ln *lane) isStalled(now time.Time, stall time.Duration) bool {
	head := ln.current
	if len(ln.placed) > 0 {
		head = ln.placed[0]
	}
	return head != nil && !head.publishing && now.Sub(ln.movedAt) >= stall
}

// stallTime returns how long a lane may go without movement before it is stalled. Usually that is
// the configured time. But if half of the window is in use, a lane with many entries has only a
// tenth of that time. Such a lane takes room in the window from other keys. Its unsettled messages
// also make the transport defer the acks of other keys.
func (l *lanes) stallTime(ln *lane) time.Duration {
	if len(ln.waiting)+len(ln.placed) > 2*l.limit && l.waiting+l.running+len(l.refused) >= l.window/2 {
		return l.stall / 10
	}
	return l.stall
}

// restartStallTimes sets movedAt of all lanes to now, at the end of a pause. The pause kept the
// lanes from moving. Their devices aren't stalled.
func (l *lanes) restartStallTimes(now time.Time) {
	for _, ln := range l.byKey {
		ln.movedAt = now
	}
}

// sweepStalled drops waiting entries whose delivery is void, and refuses waiting entries of
// stalled lanes. If stalled lanes take half of the window, it refuses all of their waiting
// entries.
func (l *lanes) sweepStalled(now time.Time) {
	blocked := 0 // how many unsettled entries the stalled lanes have
	var stalled []*lane
	for _, ln := range l.byKey {
		l.dropped = l.dropFromLane(ln, (*entry).isVoid, l.dropped)
		if !ln.key.released && ln.isStalled(now, l.stallTime(ln)) {
			stalled = append(stalled, ln)
			blocked += len(ln.waiting) + len(ln.placed) + 1
		}
		l.scheduleLane(ln)
	}
	if !l.refusable {
		return
	}
	keep := l.limit
	if blocked >= max(l.window/2, 1) {
		keep = 0
	}
	for _, ln := range stalled {
		l.refuseAbove(ln, keep)
	}
}

// refuseOverdue refuses the waiting entries that are past the ack deadline. It refuses none if the
// handler can't refuse messages, and it never refuses reruns. It returns true if waiting entries
// or reruns past the ack deadline are left.
func (l *lanes) refuseOverdue(now time.Time) bool {
	old := func(e *entry) bool { return e.isOverdue(now, l.deadline) }
	late := false
	for _, ln := range l.byKey {
		late = late || slices.ContainsFunc(ln.reruns, old)
		if l.refusable {
			l.refuseWaiting(ln, handlers.ReasonAckDeadline, old)
		} else {
			late = late || slices.ContainsFunc(ln.waiting, old)
		}
	}
	return late
}

// eachUnsettled calls f for every entry in the lanes. Refused entries that have started aren't
// among them.
func (l *lanes) eachUnsettled(f func(*entry)) {
	visit := func(all ...*entry) {
		for _, e := range all {
			if e != nil {
				f(e)
			}
		}
	}
	visit(l.refused...)
	for _, ln := range l.byKey {
		visit(ln.current)
		visit(ln.waiting...)
		visit(ln.placed...)
		visit(ln.reruns...)
	}
}

// hasUnstarted reports whether there is an entry that hasn't started, or that waits for another
// run.
func (l *lanes) hasUnstarted() bool {
	for _, ln := range l.byKey {
		if len(ln.reruns) > 0 {
			return true
		}
	}
	return l.waiting > 0 || len(l.refused) > 0
}

// dropUnstarted drops the entries that haven't started and match, and returns them.
func (l *lanes) dropUnstarted(match func(*entry) bool) []*entry {
	var dropped []*entry
	l.refused = slices.DeleteFunc(l.refused, func(e *entry) bool {
		if !match(e) {
			return false
		}
		e.lane.refusals--
		dropped = append(dropped, e)
		return true
	})
	for _, ln := range l.byKey {
		dropped = l.dropFromLane(ln, match, dropped)
		l.scheduleLane(ln)
	}
	return dropped
}

// dropFromLane drops the waiting entries and reruns of a lane that match. It returns dropped with
// them appended.
func (l *lanes) dropFromLane(ln *lane, match func(*entry) bool, dropped []*entry) []*entry {
	matches := func(e *entry) bool {
		if !match(e) {
			return false
		}
		dropped = append(dropped, e)
		return true
	}
	before := len(ln.waiting)
	ln.waiting, ln.reruns = slices.DeleteFunc(ln.waiting, matches), slices.DeleteFunc(ln.reruns, matches)
	l.waiting -= before - len(ln.waiting)
	return dropped
}
