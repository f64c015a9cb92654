// Package ledger keeps the host's records of messages by id: which of them run now, and what those that ran produced. The dedup
// middleware asks it, so that a message that comes twice is handled once; handlers ask it through dedup before they do what can't be
// undone.
//
// All records are in memory, which answers every question. A ledger with a [Store] writes to it what has to outlive the process, many
// records in one transaction: [New] returns one without, [Open] one with a store.
package ledger

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// mostUnconfirmed is how many records of one pipeline may wait for their confirmation. That is more than a broker hands out unacked (65,535),
// so what is forgotten beyond it belongs to messages that went away unacked and never came back.
const mostUnconfirmed = 100_000

// Ledger is a ledger. It is safe for concurrent use.
type Ledger struct {
	// journal writes to the store; nil without one.
	journal *journal

	mostUnconfirmed int

	mu      sync.Mutex
	records map[middleware.LedgerKey]*record
	// finished are the records that are done, by pipeline.
	finished map[string]*finished
	// cut are the records of which a run began and none runs, by pipeline: see [record.isCut].
	cut    map[string]map[*record]struct{}
	owned  owned
	number int64
	// closed to those who ask, until the store's rows are here; this is why. opened is closed then.
	closed error
	opened chan struct{}
}

var _ middleware.Ledger = (*Ledger)(nil)

// record is one id: reserved, then done, then confirmed. One of which it isn't known whether a
// run did what it began, since the process or the run was cut off, waits for its message to come again.
type record struct {
	number   int64
	key      middleware.LedgerKey
	digest   middleware.Digest
	running  bool // reserved by a run
	stored   bool // the store may have a row of it
	attempts int
	outputs  []middleware.Output
	done     bool
	// unwritten says that outputs are the end of a run, and that the store doesn't have them yet.
	unwritten bool
	// origin is that of the last delivery, until it is confirmed.
	origin middleware.Origin
	// unheld says that it couldn't be written that the message is held, and nothing else is known: its place stays for when it comes again, as younger ones of
	// its device may be held meanwhile.
	unheld bool
	// owned is the message itself, from when it is held until what it came to is confirmed; begun says that the store doesn't call it held,
	// as a run began.
	owned *handlers.Held
	begun bool
	// ended is closed when the reservation ends; nil as long as nobody waits for it.
	ended chan struct{}
	// place is the record's place among those that are done, in unconfirmed or, since confirmedAt, in confirmed.
	place       *list.Element
	confirmed   bool
	confirmedAt time.Duration // on the clock of its pipeline
}

// New returns an empty ledger in memory, which promises nothing across a restart.
func New() *Ledger {
	l := &Ledger{
		opened:          make(chan struct{}),
		mostUnconfirmed: mostUnconfirmed, records: map[middleware.LedgerKey]*record{}, finished: map[string]*finished{}, owned: newOwned(),
		cut: map[string]map[*record]struct{}{},
	}
	close(l.opened)
	return l
}

// Open returns a ledger that keeps in s what has to outlive the process. It does no I/O itself: until the store's rows are read,
// which is tried again until it works, everything is unavailable. Close it.
func Open(s Store, log *slog.Logger) *Ledger {
	l := New()
	l.closed, l.opened = errOpening, make(chan struct{})
	l.journal = newJournal(s, log, l)
	return l
}

// Durable reports whether records outlive the process.
func (l *Ledger) Durable() bool { return l.journal != nil }

// Opened is closed when the store's rows are here.
func (l *Ledger) Opened() <-chan struct{} { return l.opened }

// Health returns why the store can't be used at the moment, or nil.
func (l *Ledger) Health() error {
	if l.journal == nil {
		return nil
	}
	return l.journal.health()
}

// Close writes what is left, and closes the store. It tries until all is written or ctx ends. If
// something is left then, the error says how much, and why. A second call waits for the first one
// and returns nil.
func (l *Ledger) Close(ctx context.Context) error {
	if l.journal == nil {
		return nil
	}
	err := l.journal.close(ctx)
	if err == nil {
		return nil
	}
	return fmt.Errorf("closing the ledger: %s%w", l.left(), err)
}

// mostNamed is how many ids the error of Close names.
const mostNamed = 10

// left says what isn't in the store after the journal's end, or nothing.
func (l *Ledger) left() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for _, r := range l.records {
		if r.unwritten {
			ids = append(ids, strconv.Quote(r.key.ID))
		}
	}
	changes := l.journal.left()
	slices.Sort(ids)
	named := strings.Join(ids[:min(len(ids), mostNamed)], ", ")
	if len(ids) > mostNamed {
		named += ", ..."
	}
	switch {
	case len(ids) == 1:
		return fmt.Sprintf("1 outcome isn't recorded (id %s); if its message comes again it may run again, or end as unknown: ", named)
	case len(ids) > 1:
		return fmt.Sprintf("%d outcomes aren't recorded (ids %s); if their messages come again they may run again, or end as unknown: ", len(ids), named)
	case changes > 0:
		return "not all changes are recorded, so that some results may come twice: "
	default:
		return ""
	}
}

// refuse says why the store's rows aren't here yet.
func (l *Ledger) refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = err
}

// load takes the store's rows in. How old confirmed ones are isn't asked: their window starts anew, so that no change of the clock
// and no long absence makes a duplicate look new.
func (l *Ledger) load(rows []Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range rows {
		l.number = max(l.number, row.Number)
		r := &record{
			number: row.Number, key: row.Key, digest: row.Digest, attempts: row.Attempts, outputs: row.Outputs,
			stored: true, begun: row.State == Writing, done: row.State == Done || row.State == Confirmed, origin: row.Origin,
		}
		if row.Message != nil {
			r.own(row.Message)
			l.owned.add(r.key, r.owned)
		}
		l.records[row.Key] = r
		if r.done {
			l.finish(r)
		}
		l.updateCut(r)
		if row.State == Confirmed {
			l.finished[row.Key.Pipeline].confirm(r)
		}
	}
	l.closed = nil
	close(l.opened)
}

// Reserve claims key for one run; see middleware.Ledger.
func (l *Ledger) Reserve(ctx context.Context, key middleware.LedgerKey, body middleware.Digest, from middleware.Origin) (middleware.Claim, error) {
	return alone(ctx, key, func() (middleware.Claim, <-chan struct{}, error) { return l.claim(key, body, from) })
}

// alone waits until no other run holds the key.
func alone(ctx context.Context, key middleware.LedgerKey, claim func() (middleware.Claim, <-chan struct{}, error)) (middleware.Claim, error) {
	for {
		claimed, ended, err := claim()
		if ended == nil {
			return claimed, err
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return middleware.Claim{}, fmt.Errorf("waiting for the run of id %q: %w", key.ID, context.Cause(ctx))
		}
	}
}

// claim makes a claim, or returns the end of the run that holds the key.
func (l *Ledger) claim(key middleware.LedgerKey, body middleware.Digest, from middleware.Origin) (middleware.Claim, <-chan struct{}, error) {
	for _, s := range [...]string{key.Pipeline, key.ID, key.Device} {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return middleware.Claim{}, nil, handlers.Permanent(fmt.Errorf("the ledger takes only UTF-8 without NUL as an id or a device, not %q", s))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed != nil {
		return middleware.Claim{}, nil, handlers.Unavailable(fmt.Errorf("asking the ledger for id %q: %w", key.ID, l.closed))
	}
	if f := l.finished[key.Pipeline]; f != nil {
		l.forget(f)
	}
	r, ok := l.records[key]
	switch {
	case !ok:
		l.number++
		l.records[key] = &record{number: l.number, key: key, digest: body, running: true, origin: from}
		return middleware.Claim{State: middleware.ClaimReserved}, nil, nil
	case r.running:
		return middleware.Claim{}, r.end(), nil
	case r.unheld && r.attempts == 0:
		r.digest, r.unheld, r.origin = body, false, from
		l.run(r)
		return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil, nil
	case r.digest != body:
		return middleware.Claim{State: middleware.ClaimReused}, nil, nil
	case r.unwritten:
		return middleware.Claim{}, nil, l.unavailable(key, cmp.Or(l.journal.health(), errUnwritten))
	case r.done, r.owned != nil:
		return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil, nil
	default:
		r.origin = from
		l.run(r)
		return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil, nil
	}
}

// run has a run hold the record.
func (l *Ledger) run(r *record) {
	r.running = true
	l.updateCut(r)
}

// isCut reports whether a run of the record began and was cut off: its message has to be
// redelivered.
func (r *record) isCut() bool {
	return r.attempts > 0 && !r.running && !r.done && !r.unwritten && r.owned == nil
}

// updateCut adds the record to cut or removes it.
func (l *Ledger) updateCut(r *record) {
	all := l.cut[r.key.Pipeline]
	switch {
	case !r.isCut():
		delete(all, r)
	case all == nil:
		l.cut[r.key.Pipeline] = map[*record]struct{}{r: {}}
	default:
		all[r] = struct{}{}
	}
}

// errUnwritten is said while the store comes back.
var errUnwritten = errors.New("the store doesn't have them yet")

// running returns the record of a key that a run holds, or nil.
func (l *Ledger) running(key middleware.LedgerKey) *record {
	if r, ok := l.records[key]; ok && r.running {
		return r
	}
	return nil
}

// Begin records that the run is about to do what can't be undone.
func (l *Ledger) Begin(key middleware.LedgerKey, sync bool) (int, error) {
	l.mu.Lock()
	r := l.running(key)
	if r == nil {
		l.mu.Unlock()
		return 0, fmt.Errorf("beginning id %q: it isn't reserved", key.ID)
	}
	r.attempts++
	attempt, row := r.attempts, r.row(Writing)
	r.stored, r.begun = true, true
	l.mu.Unlock()
	if l.journal == nil {
		return attempt, nil
	}
	if err := l.journal.write(row, sync); err != nil {
		l.Retract(key)
		return 0, handlers.Unavailable(fmt.Errorf("recording that id %q begins: %w", key.ID, err))
	}
	return attempt, nil
}

// Retract takes the latest Begin back.
func (l *Ledger) Retract(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.running(key)
	if r == nil || r.attempts == 0 {
		return
	}
	r.attempts--
	l.later(r.row(Writing))
}

// row is the record as a store keeps it.
func (r *record) row(s State) Row {
	return Row{Number: r.number, Key: r.key, Digest: r.digest, State: s, Attempts: r.attempts, Outputs: r.outputs, Known: r.stored, Origin: r.origin}
}

// later has a change made by and by.
func (l *Ledger) later(r Row) {
	if l.journal != nil {
		l.journal.later(r)
	}
}

// Commit records what the run produced and ends the reservation.
func (l *Ledger) Commit(key middleware.LedgerKey, outputs []middleware.Output) error {
	l.mu.Lock()
	r := l.running(key)
	if r == nil {
		l.mu.Unlock()
		return fmt.Errorf("recording the outputs of id %q: it isn't reserved", key.ID)
	}
	r.outputs, r.unwritten = outputs, true
	row := r.row(Done)
	r.stored = true
	l.mu.Unlock()
	var err error
	if l.journal != nil {
		err = l.journal.write(row, false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.release()
	if err != nil && r.unwritten {
		return l.unavailable(key, err)
	}
	l.written(r)
	return nil
}

// unavailable is the error about a record whose outputs the store doesn't have yet.
func (l *Ledger) unavailable(key middleware.LedgerKey, err error) error {
	return handlers.Unavailable(fmt.Errorf("recording the outputs of id %q: %w", key.ID, err))
}

// written notes that the store has the outputs of a record.
func (l *Ledger) written(r *record) {
	r.done, r.unheld, r.unwritten = true, false, false
	if f := l.finish(r); f.unconfirmed.Len() > l.mostUnconfirmed {
		l.drop(&f.unconfirmed)
	}
}

// restored notes which rows the store has now. A run may have ended after missing returned them:
// its outcome isn't among them.
func (l *Ledger) restored(rows []Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range rows {
		switch r := l.records[row.Key]; {
		case row.State != Done || r == nil || !r.unwritten:
		case r.running: // Commit goes on
			r.unwritten = false
		default:
			l.written(r)
		}
	}
}

// Release ends the reservation, and forgets it if nothing began under it.
func (l *Ledger) Release(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.running(key)
	if r == nil {
		return
	}
	r.release()
	if r.attempts > 0 || r.owned != nil || r.unheld {
		l.updateCut(r)
		return
	}
	delete(l.records, key)
	if r.stored {
		l.later(Row{Number: r.number})
	}
}

// end is closed when the reservation ends.
func (r *record) end() <-chan struct{} {
	if r.ended == nil {
		r.ended = make(chan struct{})
	}
	return r.ended
}

// release ends the reservation and wakes all who wait for that.
func (r *record) release() {
	r.running = false
	if r.ended != nil {
		close(r.ended)
		r.ended = nil
	}
}

// Confirm records that nothing is left to do, so that the record may be forgotten by and by. Confirming it again starts its window anew.
func (l *Ledger) Confirm(key middleware.LedgerKey, keep middleware.Retention) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[key]
	switch {
	case !ok || !r.done || r.confirmed || l.journal == nil:
	case r.owned != nil:
		// No source is told of it. After a crash the ledger itself brings the message up, and its outputs are sent once more.
		l.journal.confirmLater(r.number)
	default:
		number := r.number
		l.mu.Unlock()
		err := l.journal.write(Row{Number: number, State: Confirmed}, false)
		l.mu.Lock()
		if err != nil {
			return handlers.Unavailable(fmt.Errorf("recording that the outputs of id %q are confirmed: %w", key.ID, err))
		}
		r, ok = l.records[key]
	}
	if !ok || !r.done {
		return nil
	}
	if r.owned != nil {
		l.owned.remove(key, r.owned)
		r.owned = nil
	}
	r.origin = middleware.Origin{}
	f := l.finished[key.Pipeline]
	f.keep = keep
	f.confirm(r)
	l.forget(f)
	return nil
}
