package router

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

const (
	// wallLook is how often the wall clock is looked at for what expires: it may be set meanwhile.
	wallLook = time.Minute
	// firstRound and lastRound bound the pauses between rounds that bring nothing forward.
	firstRound = 100 * time.Millisecond
	lastRound  = 5 * time.Second
)

// holds brings the messages back that the ledger owns: it is the second source of a pipeline's intake. What awaits the same is a line, which is gone
// through in rounds: when it is ready, so many of its messages as may be on their way come back, in order, the next as one ends; the round
// is over when one is held again. What is superseded or expires comes back beside its line.
type holds struct {
	pipeline string
	ledger   middleware.Ledger
	handler  handlers.Holder
	inject   func([]*resumed) bool
	log      *slog.Logger
	now      func() time.Time
	gauge    prometheus.Gauge
	// most is how many are on their way in all, perLine of a line.
	most, perLine int
	closed        <-chan struct{}
	life          context.Context
	wake          chan struct{}

	// mu is taken under the locks of the intake and of devices; nothing else is locked while it is held.
	mu       sync.Mutex
	lines    map[string]*line
	asked    []*line    // perhaps ready
	rounds   []*line    // in a round, with messages that wait; one after the other gets to send one
	aside    []*resumed // to come back beside their lines
	expiring expiries
	count    int // that wait in lines
	flying   int
	// loaded says that what the ledger owned at the start is in lines, over that nothing comes back any more.
	loaded, over bool
	// early are the places of what was held before that, or was in the ledger's list: the two come at once, and may name the same.
	early map[int64]struct{}
}

// line is what awaits the same.
type line struct {
	awaits   string
	waiting  []*handlers.Held // in order
	flying   int              // came back, and aren't settled
	unplaced []*resumed       // those of them without a place in the handler's order yet
	mayHold  int              // runs of others that may be held
	again    int              // of these have ended, and are made once more

	round              bool
	listed, questioned bool // is in rounds, in asked
	progress           bool // one of this round wasn't held again
	pause              *backoff
	changed            chan struct{} // made by who waits
}

// resumed is a held message on its way.
type resumed struct {
	*handlers.Held
	handlers.Resumption
	beside bool
	placed bool
}

func newHolds(h *holds) *holds {
	h.wake = make(chan struct{}, 1)
	h.lines, h.early = map[string]*line{}, map[int64]struct{}{}
	h.expiring.in = map[*handlers.Held]struct{}{}
	h.handler.Watch(h.ready)
	return h
}

func (h *holds) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// ready notes that what awaits this may come back.
func (h *holds) ready(awaits string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.lines[awaits]; l != nil {
		l.pause = nil
		h.ask(l)
	}
}

// ask has it looked whether a line is ready.
func (h *holds) ask(l *line) {
	if !l.questioned && !l.round && len(l.waiting) > 0 {
		l.questioned = true
		h.asked = append(h.asked, l)
		h.signal()
	}
}

// line returns the line of what awaits this.
func (h *holds) line(awaits string) *line {
	l := h.lines[awaits]
	if l == nil {
		l = &line{awaits: awaits}
		h.lines[awaits] = l
	}
	return l
}

// change tells those who wait for a line, and forgets it if it is empty.
func (h *holds) change(l *line) {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if len(l.waiting) == 0 && l.flying == 0 && l.mayHold == 0 {
		delete(h.lines, l.awaits)
	}
}

func (h *holds) changeAll() {
	for _, l := range h.lines {
		h.change(l)
	}
}

// run is the goroutine that brings messages back, until the intake closes.
func (h *holds) run() {
	ctx, cancel := context.WithCancel(h.life)
	defer cancel()
	go func() {
		select {
		case <-h.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	owned, err := h.ledger.Owned(ctx, h.pipeline)
	if err != nil {
		return // it is closed
	}
	h.load(owned)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		h.question()
		back, next := h.next()
		if len(back) > 0 {
			if !h.inject(back) {
				return
			}
			continue
		}
		timer.Reset(next)
		select {
		case <-h.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// load takes in what the ledger owns at the start.
func (h *holds) load(owned []*handlers.Held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range owned {
		if h.known(held) {
			continue
		}
		if held.Ended {
			h.beside(&resumed{Held: held})
			continue
		}
		h.add(held)
		if l := h.lines[held.Awaits]; l != nil && held.Begun && !l.round {
			h.begin(l) // what became of it can be told without what it awaits
		}
	}
	if n := len(owned); n > 0 {
		h.log.Info("messages are held from before", "messages", n)
	}
	h.loaded = true
	h.changeAll()
}

// known says whether a message is in a line, or will be when its run is settled. What wasn't before is from now on.
func (h *holds) known(held *handlers.Held) bool {
	if _, known := h.early[held.Order]; known {
		return true
	}
	if !h.loaded {
		h.early[held.Order] = struct{}{}
	}
	return false
}

// end notes that nothing comes back any more. Who waits for it isn't kept waiting.
func (h *holds) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.changeAll()
}

// beside has a message come back beside its line.
func (h *holds) beside(r *resumed) {
	r.beside = true
	h.aside = append(h.aside, r)
	h.signal()
}

// add takes a message into its line that is held now.
func (h *holds) add(held *handlers.Held) {
	h.put(held)
	if l := h.lines[held.Awaits]; l.round {
		h.list(l)
	} else {
		h.ask(l)
	}
}

// put takes a message into its line, unless a newer one takes its place, and takes out those whose place it takes.
func (h *holds) put(held *handlers.Held) {
	l := h.line(held.Awaits)
	if held.Sets != "" {
		stay := l.waiting[:0]
		for _, other := range l.waiting {
			switch {
			case other.Sets != held.Sets || other.Begun || held.Begun:
				stay = append(stay, other)
			case other.Order > held.Order:
				h.beside(&resumed{Held: held, Resumption: handlers.Resumption{SupersededBy: other.ID}})
				return
			default:
				h.taken(other)
				h.beside(&resumed{Held: other, Resumption: handlers.Resumption{SupersededBy: held.ID}})
			}
		}
		clear(l.waiting[len(stay):])
		l.waiting = stay
	}
	at, _ := slices.BinarySearchFunc(l.waiting, held, func(a, b *handlers.Held) int { return cmp.Compare(a.Order, b.Order) })
	l.waiting = slices.Insert(l.waiting, at, held)
	h.count++
	if h.expiring.add(held) {
		h.signal()
	}
}

// taken notes that a message waits in its line no more.
func (h *holds) taken(held *handlers.Held) {
	h.count--
	h.expiring.remove(held)
}

// question begins rounds of the lines that turn out to be ready.
func (h *holds) question() {
	for {
		h.mu.Lock()
		if len(h.asked) == 0 {
			h.mu.Unlock()
			return
		}
		l := h.asked[0]
		h.asked = h.asked[1:]
		l.questioned = false
		h.mu.Unlock()
		ready := h.handler.Ready(l.awaits)
		h.mu.Lock()
		if ready && !l.round && l.flying == 0 && len(l.waiting) > 0 {
			h.begin(l)
		}
		h.mu.Unlock()
	}
}

// begin begins a round.
func (h *holds) begin(l *line) {
	l.round, l.progress = true, false
	h.list(l)
}

func (h *holds) list(l *line) {
	if !l.listed {
		l.listed = true
		h.rounds = append(h.rounds, l)
		h.signal()
	}
}

// next returns what comes back now, and how long nothing more may have to.
func (h *holds) next() ([]*resumed, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	wait := h.expire()
	var back []*resumed
	send := func(r *resumed) {
		h.flying++
		back = append(back, r)
	}
	for h.flying < h.most && len(h.aside) > 0 {
		send(h.aside[0])
		h.aside = h.aside[1:]
	}
	for h.flying < h.most && len(h.rounds) > 0 {
		l := h.rounds[0]
		h.rounds = h.rounds[1:]
		l.listed = false
		if !l.round || len(l.waiting) == 0 || l.flying >= h.perLine {
			continue
		}
		held := l.waiting[0]
		l.waiting = l.waiting[1:]
		h.taken(held)
		l.flying++
		r := &resumed{Held: held}
		l.unplaced = append(l.unplaced, r)
		send(r)
		h.list(l)
	}
	h.gauge.Set(float64(h.count + len(h.aside)))
	return back, wait
}

// expire has those come back beside their lines whose time is over, and returns when to look again.
func (h *holds) expire() time.Duration {
	now := h.now()
	for {
		held := h.expiring.first()
		if held == nil {
			return wallLook
		}
		if left := held.Expires.Sub(now); left > 0 {
			return min(wallLook, left)
		}
		h.taken(held)
		l := h.lines[held.Awaits]
		l.waiting = slices.DeleteFunc(l.waiting, func(other *handlers.Held) bool { return other == held })
		h.beside(&resumed{Held: held})
		h.change(l)
	}
}

// placed notes that a message has its place in the handler's order.
func (h *holds) placed(e *entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.again {
		h.surely(e)
	}
	if e.resumed == nil || e.resumed.beside || e.resumed.placed {
		return
	}
	e.resumed.placed = true
	l := h.line(e.resumed.Awaits)
	l.place(e.resumed)
	h.change(l)
}

// place notes that a message which came back needs no place in the handler's order any more.
func (l *line) place(r *resumed) {
	l.unplaced = slices.DeleteFunc(l.unplaced, func(other *resumed) bool { return other == r })
}

// settled takes the end of a run in: of one that came back, or of one whose message is held now. With again it is run once more: what is held goes into
// its line when that is told, and what may have been going to be held still may.
func (h *holds) settled(e *entry, acked, again bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := e.held
	if again && e.resumed == nil {
		if held != nil {
			h.mayHold(e, held.Awaits)
		}
		if e.mayAwait != "" {
			l := h.line(e.mayAwait)
			l.again++
			e.again = true
			h.change(l)
		}
		return
	}
	h.surely(e)
	e.held = nil
	switch {
	case e.resumed == nil && held != nil:
		h.add(held)
	case e.resumed == nil:
	case again && held == nil:
		if !e.resumed.beside && e.resumed.placed {
			e.resumed.placed = false
			l := h.line(e.resumed.Awaits)
			l.unplaced = append(l.unplaced, e.resumed)
		}
	default:
		h.back(e.resumed, acked, held != nil)
	}
}

// back takes the end of a message in that came back. It is done with, or held again.
func (h *holds) back(r *resumed, acked, held bool) {
	h.flying--
	l := h.line(r.Awaits)
	if !r.beside {
		l.flying--
		l.place(r)
	}
	switch {
	case held:
		l.round = l.round && r.beside
		h.put(r.Held)
	case acked:
		l.progress = true
		h.ledger.Disown(middleware.LedgerKey{Pipeline: h.pipeline, ID: r.ID, Device: r.Key})
	}
	switch {
	case l.round && len(l.waiting) > 0:
		h.list(l)
	case l.flying == 0:
		l.round = false
		h.again(l)
	}
	h.change(l)
	h.signal()
}

// again asks for a line whose round is over. After one that brought nothing forward it waits a little: what is ready and yet takes nothing, as a
// device whose queue is full, would be asked all the time.
func (h *holds) again(l *line) {
	if len(l.waiting) == 0 {
		l.pause = nil
		return
	}
	if l.progress {
		l.pause = nil
		h.ask(l)
		return
	}
	if l.pause == nil {
		l.pause = newBackoff(firstRound, lastRound)
	}
	time.AfterFunc(l.pause.next(), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.ask(l)
	})
}

// mayHold counts a message as one that may be going to be held. The lock is held.
func (h *holds) mayHold(e *entry, awaits string) {
	switch {
	case e.mayAwait == "":
		e.mayAwait = awaits
		h.line(awaits).mayHold++
	case e.again:
		h.line(awaits).again--
		e.again = false
	}
}

// surely notes that it is known whether a message is held. Those of its line that waited for that may come back now. The lock is held.
func (h *holds) surely(e *entry) {
	if e.mayAwait == "" {
		return
	}
	l := h.line(e.mayAwait)
	l.mayHold--
	if e.again {
		l.again--
	}
	e.mayAwait, e.again = "", false
	h.ask(l)
	h.change(l)
}

// errRunAgain is why a message doesn't wait for one before it: that one is run again first, in the same lane.
var errRunAgain = handlers.Unavailable(errors.New("an older message is to be run again first"))

// before is handlers.HeldBefore. In a stop it ends a run that would wait: its message goes back to its source.
func (h *holds) before(r *run, awaits string) (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lines[awaits]
	n := 0
	if l != nil {
		if l.again > 0 && r.entry.resumed == nil && r.entry.mayAwait != awaits {
			return nil, errRunAgain
		}
		n = l.mayHold
		if r.entry.mayAwait == awaits {
			n--
		}
		switch back := r.entry.resumed; {
		case back == nil:
			n += len(l.waiting) + len(l.unplaced)
		case len(l.waiting) > 0 && l.waiting[0].Order < back.Order, // it was held again
			slices.ContainsFunc(l.unplaced, func(other *resumed) bool { return other.Order < back.Order }): // it was held later
			n++
		}
	}
	if n == 0 && h.loaded {
		return nil, nil
	}
	l = h.line(awaits)
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	if h.over {
		r.cancel(errStopped)
	}
	return l.changed, nil
}

// resume puts messages into their lanes that come back. It is false once the intake takes no more.
func (in *intake) resume(back []*resumed) bool {
	entries := make([]*entry, len(back))
	for i, r := range back {
		msg := r.Message()
		if in.answerer != nil {
			in.answerer.Answer(msg)
		}
		desc, err := in.describe(msg)
		if err != nil {
			in.log.Warn("a message that was held can't be described any more", "id", r.ID, "err", err)
		}
		desc.ID, desc.Key = r.ID, r.Key
		r.Resumption.Expires = r.Held.Expires
		entries[i] = &entry{msg: msg, desc: desc, resumed: r}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping || isClosed(in.ending) {
		return false
	}
	now := time.Now()
	for _, e := range entries {
		in.lanes.add(e, e.resumed.beside, now)
	}
	in.signal()
	return true
}

// What a run says and hears of what is held.

func (r *run) Resumed() *handlers.Resumption {
	if r.entry.resumed == nil {
		return nil
	}
	return &r.entry.resumed.Resumption
}

func (r *run) MayHold(awaits string) {
	if h := r.in.holds; h != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.mayHold(r.entry, awaits)
	}
}

func (r *run) HeldBefore(awaits string) (<-chan struct{}, error) {
	if r.in.holds == nil {
		return nil, nil
	}
	return r.in.holds.before(r, awaits)
}

func (r *run) Held(held *handlers.Held) {
	h, e := r.in.holds, r.entry
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case e.resumed != nil:
		e.held = e.resumed.Held
	case !h.known(held):
		e.held = held
	}
}
