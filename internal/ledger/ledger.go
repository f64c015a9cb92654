// Package ledger keeps the host's records of messages by id: which messages are being handled, and
// what the handled ones produced. The middleware dedup uses it to handle each message once.
// Handlers use it, through dedup, to record that they are about to do something that can't be
// undone.
//
// A message's record goes through these states:
//
//	reserved     a run has claimed the id, and other runs of the id wait; the claim is made with
//	             Reserve, or with Resume for an owned or abandoned message
//	begun        after Begin: bytes may have reached the device; attempts counts the begun runs
//	interrupted  begun, but no run has it and there is no outcome: its source has to redeliver it
//	owned        after Hold: the ledger has the message itself, and no source redelivers it
//	done         after Commit: the outputs are known, and not all of them are published
//	confirmed    after Confirm: all outputs are published; duplicates get them again
//
// A reserved record may be begun or owned, too. Release ends a reservation without an outcome. The
// record is then forgotten, unless it is begun or owned. A confirmed record is forgotten when its
// [middleware.Retention] is over.
//
// Invariants:
//
//   - At most one run has a record reserved. Only this run changes its attempts and its outputs.
//   - Memory answers every call, and has every row of the store: [Open] reads all of them, and no
//     other process writes them. The journal writes the changes to the store.
//   - An outcome is unwritten until the store has it. Until then, a redelivered message or a
//     duplicate neither runs nor gets the outputs: it gets an error of kind unavailable.
//   - A record keeps its number for life, and a number is never used twice. A device gets its held
//     messages in the order of their numbers.
//
// Lock order: Ledger.mu, which guards all records, before journal.mu. A method unlocks Ledger.mu
// before it waits for the store or for another run. So a method looks a record up again after a
// wait, unless its run has the record reserved.
//
// [New] returns a ledger in memory, [Open] one with a store.
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

// maxUnconfirmed limits the records of one pipeline that are done and not confirmed. A broker
// delivers at most 65,535 messages without acks. So if there are more records than the limit, the
// oldest one belongs to a message that was never redelivered.
const maxUnconfirmed = 100_000

// Ledger implements [middleware.Ledger]. It is safe for concurrent use.
type Ledger struct {
	// journal writes to the store. It is nil in a ledger without a store.
	journal *journal

	maxUnconfirmed int

	mu      sync.Mutex
	records map[middleware.LedgerKey]*record
	// finished has the done and the confirmed records, by pipeline.
	finished map[string]*finished
	// interrupted has the records for which isInterrupted is true, by pipeline.
	interrupted map[string]map[*record]struct{}
	owned       owned
	number      int64 // of the newest record
	// loadErr says why the store's rows aren't loaded yet. Once they are, it is nil and opened is
	// closed.
	loadErr error
	opened  chan struct{}
}

var _ middleware.Ledger = (*Ledger)(nil)

// record is the ledger's record of one id. The package's comment describes its states.
type record struct {
	number   int64
	key      middleware.LedgerKey
	digest   middleware.Digest
	reserved bool // a run has it
	stored   bool // the store may have a row of it
	attempts int  // how many runs have begun
	outputs  []middleware.Output
	done     bool
	// unwritten says that outputs are from Commit, and that the store doesn't have them yet.
	unwritten bool
	// origin describes the last delivery of the message. It is empty once the record is confirmed.
	origin middleware.Origin
	// holdFailed says that the store couldn't write the change of Hold. The record keeps its
	// number. Newer messages of its device may be held before this message is redelivered. Then
	// the number places this message before them.
	holdFailed bool
	// owned is the message itself, from Hold until the record is confirmed.
	owned *handlers.Held
	// begun says that the store's row of an owned message is Writing instead of Held, because a
	// run has begun.
	begun bool
	// ended is closed when the reservation ends. It is nil while no other run waits for that.
	ended chan struct{}
	// element is the record's place in finished.unconfirmed or, if it is confirmed, in
	// finished.confirmed.
	element     *list.Element
	confirmed   bool
	confirmedAt time.Duration // on the clock of its pipeline
}

// New returns an empty ledger in memory. Its records end with the process.
func New() *Ledger {
	l := &Ledger{
		opened:         make(chan struct{}),
		maxUnconfirmed: maxUnconfirmed, records: map[middleware.LedgerKey]*record{}, finished: map[string]*finished{}, owned: newOwned(),
		interrupted: map[string]map[*record]struct{}{},
	}
	close(l.opened)
	return l
}

// Open returns a ledger whose records outlive the process in s. It reads the store's rows in the
// background and tries until it succeeds. Until then Reserve returns an error of kind unavailable.
// The caller closes the ledger.
func Open(s Store, log *slog.Logger) *Ledger {
	l := New()
	l.loadErr, l.opened = errOpening, make(chan struct{})
	l.journal = newJournal(s, log, l)
	return l
}

// Durable reports whether records outlive the process.
func (l *Ledger) Durable() bool { return l.journal != nil }

// Opened returns a channel that is closed when the store's rows are loaded.
func (l *Ledger) Opened() <-chan struct{} { return l.opened }

// Health returns why the store can't be used now, or nil.
func (l *Ledger) Health() error {
	if l.journal == nil {
		return nil
	}
	return l.journal.health()
}

// Close writes the remaining changes and closes the store. It tries until all are written or ctx
// ends. If some are left then, the error says how many, and why. A second call waits for the first
// one and returns nil.
func (l *Ledger) Close(ctx context.Context) error {
	if l.journal == nil {
		return nil
	}
	err := l.journal.close(ctx)
	if err == nil {
		return nil
	}
	return fmt.Errorf("closing the ledger: %s%w", l.describeUnwritten(), err)
}

// maxNamed is the most ids that the error of Close names.
const maxNamed = 10

// describeUnwritten says which outcomes and changes the store lacks after the journal's end. It
// returns "" if there are none.
func (l *Ledger) describeUnwritten() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for _, r := range l.records {
		if r.unwritten {
			ids = append(ids, strconv.Quote(r.key.ID))
		}
	}
	changes := l.journal.queueLength()
	slices.Sort(ids)
	named := strings.Join(ids[:min(len(ids), maxNamed)], ", ")
	if len(ids) > maxNamed {
		named += ", ..."
	}
	switch {
	case len(ids) == 1:
		return fmt.Sprintf("1 outcome isn't recorded (id %s); if its message is redelivered, it may run again or end as unknown: ", named)
	case len(ids) > 1:
		return fmt.Sprintf("%d outcomes aren't recorded (ids %s); if their messages are redelivered, they may run again or end as unknown: ", len(ids), named)
	case changes > 0:
		return "not all changes are recorded; some results may be published twice: "
	default:
		return ""
	}
}

// setLoadError records why the store's rows aren't loaded yet.
func (l *Ledger) setLoadError(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loadErr = err
}

// loadRows makes records of the store's rows. The retention of the confirmed ones starts again, so
// that neither a change of the clock nor a long stop of the host makes a duplicate look new.
func (l *Ledger) loadRows(rows []Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range rows {
		l.number = max(l.number, row.Number)
		r := &record{
			number: row.Number, key: row.Key, digest: row.Digest, attempts: row.Attempts, outputs: row.Outputs,
			stored: true, begun: row.State == Writing, done: row.State == Done || row.State == Confirmed, origin: row.Origin,
		}
		if row.Message != nil {
			r.setOwned(row.Message)
			l.owned.add(r.key, r.owned)
		}
		l.records[row.Key] = r
		if r.done {
			l.addFinished(r)
		}
		l.updateInterrupted(r)
		if row.State == Confirmed {
			l.finished[row.Key.Pipeline].markConfirmed(r)
		}
	}
	l.loadErr = nil
	close(l.opened)
}

// Reserve claims key for one run; see middleware.Ledger.
func (l *Ledger) Reserve(ctx context.Context, key middleware.LedgerKey, body middleware.Digest, from middleware.Origin) (middleware.Claim, error) {
	return claimWhenFree(ctx, key, func() (middleware.Claim, <-chan struct{}, error) { return l.tryClaim(key, body, from) })
}

// claimWhenFree calls claim until it succeeds or fails. As long as another run has the key, claim
// returns a channel instead, which is closed when that run ends.
func claimWhenFree(ctx context.Context, key middleware.LedgerKey, claim func() (middleware.Claim, <-chan struct{}, error)) (middleware.Claim, error) {
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

// tryClaim claims the key, or returns a channel that is closed when the run that has it ends.
func (l *Ledger) tryClaim(key middleware.LedgerKey, body middleware.Digest, from middleware.Origin) (middleware.Claim, <-chan struct{}, error) {
	for _, s := range [...]string{key.Pipeline, key.ID, key.Device} {
		if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
			return middleware.Claim{}, nil, handlers.Permanent(fmt.Errorf("the ledger accepts only UTF-8 without NUL as an id or a device, not %q", s))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loadErr != nil {
		return middleware.Claim{}, nil, handlers.Unavailable(fmt.Errorf("looking up id %q in the ledger: %w", key.ID, l.loadErr))
	}
	if f := l.finished[key.Pipeline]; f != nil {
		l.dropExpired(f)
	}
	r, ok := l.records[key]
	switch {
	case !ok:
		l.number++
		l.records[key] = &record{number: l.number, key: key, digest: body, reserved: true, origin: from}
		return middleware.Claim{State: middleware.ClaimReserved}, nil, nil
	case r.reserved:
		return middleware.Claim{}, r.reservationEnd(), nil
	case r.holdFailed && r.attempts == 0:
		r.digest, r.holdFailed, r.origin = body, false, from
		l.reserve(r)
		return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil, nil
	case r.digest != body:
		return middleware.Claim{State: middleware.ClaimReused}, nil, nil
	case r.unwritten:
		return middleware.Claim{}, nil, l.outputsUnavailable(key, cmp.Or(l.journal.health(), errUnwritten))
	case r.done, r.owned != nil:
		return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil, nil
	default:
		r.origin = from
		l.reserve(r)
		return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil, nil
	}
}

// reserve gives the record to a run.
func (l *Ledger) reserve(r *record) {
	r.reserved = true
	l.updateInterrupted(r)
}

// isInterrupted reports whether a run of the record has begun and ended without an outcome. Its
// message has to be redelivered.
func (r *record) isInterrupted() bool {
	return r.attempts > 0 && !r.reserved && !r.done && !r.unwritten && r.owned == nil
}

// updateInterrupted adds the record to the interrupted ones, or removes it from them.
func (l *Ledger) updateInterrupted(r *record) {
	all := l.interrupted[r.key.Pipeline]
	switch {
	case !r.isInterrupted():
		delete(all, r)
	case all == nil:
		l.interrupted[r.key.Pipeline] = map[*record]struct{}{r: {}}
	default:
		all[r] = struct{}{}
	}
}

// errUnwritten is the error about an outcome that the journal still has to write.
var errUnwritten = errors.New("the store doesn't have them yet")

// reservedRecord returns the record of a key if a run has it, or nil.
func (l *Ledger) reservedRecord(key middleware.LedgerKey) *record {
	if r, ok := l.records[key]; ok && r.reserved {
		return r
	}
	return nil
}

// Begin records that the run is about to do something that can't be undone; see
// middleware.Ledger.
func (l *Ledger) Begin(key middleware.LedgerKey, sync bool) (int, error) {
	l.mu.Lock()
	r := l.reservedRecord(key)
	if r == nil {
		l.mu.Unlock()
		return 0, fmt.Errorf("beginning id %q: it isn't reserved", key.ID)
	}
	r.attempts++
	attempt, row := r.attempts, r.toRow(Writing)
	r.stored, r.begun = true, true
	l.mu.Unlock()
	if l.journal == nil {
		return attempt, nil
	}
	if err := l.journal.write(row, sync); err != nil {
		l.Retract(key)
		return 0, handlers.Unavailable(fmt.Errorf("recording that id %q has begun: %w", key.ID, err))
	}
	return attempt, nil
}

// Retract undoes the latest Begin; see middleware.Ledger.
func (l *Ledger) Retract(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.reservedRecord(key)
	if r == nil || r.attempts == 0 {
		return
	}
	r.attempts--
	l.queueChange(r.toRow(Writing))
}

// toRow returns the record as a row of the store, in state s.
func (r *record) toRow(s State) Row {
	return Row{Number: r.number, Key: r.key, Digest: r.digest, State: s, Attempts: r.attempts, Outputs: r.outputs, Known: r.stored, Origin: r.origin}
}

// queueChange gives a change to the journal, and doesn't wait until it is written.
func (l *Ledger) queueChange(r Row) {
	if l.journal != nil {
		l.journal.writeLater(r)
	}
}

// Commit records the outcome of the run and ends the reservation; see middleware.Ledger.
func (l *Ledger) Commit(key middleware.LedgerKey, outputs []middleware.Output) error {
	l.mu.Lock()
	r := l.reservedRecord(key)
	if r == nil {
		l.mu.Unlock()
		return fmt.Errorf("recording the outputs of id %q: it isn't reserved", key.ID)
	}
	r.outputs, r.unwritten = outputs, true
	row := r.toRow(Done)
	r.stored = true
	l.mu.Unlock()
	var err error
	if l.journal != nil {
		err = l.journal.write(row, false)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.endReservation()
	if err != nil && r.unwritten {
		return l.outputsUnavailable(key, err)
	}
	l.markDone(r)
	return nil
}

// outputsUnavailable returns the error about a record whose outputs the store doesn't have yet.
func (l *Ledger) outputsUnavailable(key middleware.LedgerKey, err error) error {
	return handlers.Unavailable(fmt.Errorf("recording the outputs of id %q: %w", key.ID, err))
}

// markDone records that the store has the outputs of a record.
func (l *Ledger) markDone(r *record) {
	r.done, r.holdFailed, r.unwritten = true, false, false
	if f := l.addFinished(r); f.unconfirmed.Len() > l.maxUnconfirmed {
		l.dropOldest(&f.unconfirmed)
	}
}

// Release ends the reservation without an outcome; see middleware.Ledger.
func (l *Ledger) Release(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.reservedRecord(key)
	if r == nil {
		return
	}
	r.endReservation()
	if r.attempts > 0 || r.owned != nil || r.holdFailed {
		l.updateInterrupted(r)
		return
	}
	delete(l.records, key)
	if r.stored {
		l.queueChange(Row{Number: r.number})
	}
}

// reservationEnd returns a channel that is closed when the reservation ends.
func (r *record) reservationEnd() <-chan struct{} {
	if r.ended == nil {
		r.ended = make(chan struct{})
	}
	return r.ended
}

// endReservation ends the reservation and wakes the runs that wait for it.
func (r *record) endReservation() {
	r.reserved = false
	if r.ended != nil {
		close(r.ended)
		r.ended = nil
	}
}

// Confirm records that all outputs are published, so that the record is forgotten when its
// retention is over. If it is confirmed already, its retention starts again.
func (l *Ledger) Confirm(key middleware.LedgerKey, keep middleware.Retention) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[key]
	switch {
	case !ok || !r.done || r.confirmed || l.journal == nil:
	case r.owned != nil:
		// No source waits for an ack of an owned message, so the confirmation can wait. After a
		// crash the ledger still owns the message, and its outputs are published again.
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
	f.markConfirmed(r)
	l.dropExpired(f)
	return nil
}
