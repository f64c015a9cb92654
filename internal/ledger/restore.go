// A store that is opened again after an error may lack rows, or may have older versions of them.
// For example, its file was removed, a backup was put back, or the server failed over to a replica
// that was behind. This file finds out what such a store lacks. Memory has every row, since all
// were read at the start and no other process writes them. So there are four cases:
//
//	the store lacks a row of memory         the row is written
//	the store has an older state of it      the row is written
//	the store has a newer state of it       it stays: the change was written despite its error
//	memory has forgotten the row            the row is removed
//
// A row of the store can also have a number that memory never used, or the number of a record with
// another key. Then the rows belong to another store, which the host doesn't use: see errOther.

package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errOther means that a store has rows that this ledger didn't write.
var errOther = errors.New("the store has rows that this host didn't write: after a restart the host would use those rows and forget all others")

// tables identifies the tables of a store by the time when they were made. Row numbers can't
// identify them: they begin with 1 in every store, also in one of another host with the same name.
type tables struct{ made time.Time }

// adopt accepts the tables of a store that was opened. It returns errOther if they have rows and
// aren't the tables that were used before. Tables without rows may be new.
func (t *tables) adopt(made time.Time, rows []Row) error {
	if !t.made.IsZero() && !made.Equal(t.made) && len(rows) > 0 {
		return errOther
	}
	t.made = made
	return nil
}

// missingChanges returns the changes that make a store's rows equal to memory. rows are those that
// the store has.
func (l *Ledger) missingChanges(rows []Row) (Batch, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := make(map[int64]*record, len(l.records))
	for _, r := range l.records {
		known[r.number] = r
	}
	there := make(map[int64]*Row, len(rows))
	var b Batch
	for i := range rows {
		row := &rows[i]
		r, ok := known[row.Number]
		if row.Number > l.number || ok && r.key != row.Key {
			return Batch{}, fmt.Errorf("row %d, id %q: %w", row.Number, row.Key.ID, errOther)
		}
		there[row.Number] = row
		if !ok {
			b.Remove = append(b.Remove, row.Number)
		}
	}
	for _, r := range known {
		want, ok := r.wantedRow()
		if !ok {
			continue
		}
		if has := there[r.number]; has == nil || needsWrite(has, &want, r) {
			b.Put = append(b.Put, want)
		}
	}
	// A crash may leave only a part of them written. So begun and held messages come first.
	slices.SortFunc(b.Put, func(a, b Row) int {
		return cmp.Or(cmp.Compare(urgency[a.State], urgency[b.State]), cmp.Compare(a.Number, b.Number))
	})
	return b, nil
}

// urgency is the order in which missing rows are written, by their state.
var urgency = [...]int{Writing: 0, Held: 0, Done: 1, Confirmed: 2}

// needsWrite reports whether want must be written. has is the row that the store has, and want is
// the row that it should have.
func needsWrite(has, want *Row, r *record) bool {
	switch {
	case r.unwritten:
		return true // markRestored needs it among the written rows
	case !r.done && (has.State == Done || has.State == Confirmed), r.holdFailed && has.State == Held:
		return false
	default:
		return has.State != want.State || has.Attempts != want.Attempts || has.Message == nil && want.Message != nil
	}
}

// wantedRow returns the row that the store should have for a record. It returns false if the store
// needs no row for the record.
func (r *record) wantedRow() (Row, bool) {
	state := Writing
	switch {
	case !r.stored, r.holdFailed && r.attempts == 0:
		return Row{}, false
	case r.confirmed:
		state = Confirmed
	case r.done, r.unwritten:
		state = Done
	case r.owned != nil && !r.begun:
		state = Held
	}
	row := r.toRow(state)
	row.Known, row.Message = false, r.owned
	return row, true
}

// markRestored marks records as done if the store has their outcomes now. If a run ended after
// missingChanges, its outcome isn't among the rows and stays unwritten.
func (l *Ledger) markRestored(rows []Row) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, row := range rows {
		switch r := l.records[row.Key]; {
		case row.State != Done || r == nil || !r.unwritten:
		case r.reserved: // Commit still has to end the reservation
			r.unwritten = false
		default:
			l.markDone(r)
		}
	}
}
