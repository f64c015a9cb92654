package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// errOther means that a store has rows that this ledger didn't write.
var errOther = errors.New("the store has rows that this host didn't write: a restart would use them, and forget what isn't among them")

// tables are those of a store, by when they were made. That tells a store from another one that has rows of a
// host of the same name: numbers of rows begin with 1 in each.
type tables struct{ made time.Time }

// check takes the tables of a store that was opened into use. Its error is errOther if these have
// rows and aren't the tables of before; tables without rows may be new.
func (t *tables) check(made time.Time, rows []Row) error {
	if !t.made.IsZero() && !made.Equal(t.made) && len(rows) > 0 {
		return errOther
	}
	t.made = made
	return nil
}

// missing returns the changes that make a store's rows those in memory. Memory has every row: all
// were read at the start, and no other process writes to the store. So the store may lack rows, have
// them in an older state, or have rows that memory has forgotten; any other row is errOther.
//
// A row may also be newer than memory: its change was made, and reported as failed. It stays as it is.
func (l *Ledger) missing(rows []Row) (Batch, error) {
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
		want, ok := r.wanted()
		if !ok {
			continue
		}
		if has := there[r.number]; has == nil || older(has, &want, r) {
			b.Put = append(b.Put, want)
		}
	}
	// A host that is killed while it writes them leaves a part: what was begun or is held comes first.
	slices.SortFunc(b.Put, func(a, b Row) int {
		return cmp.Or(cmp.Compare(urgency[a.State], urgency[b.State]), cmp.Compare(a.Number, b.Number))
	})
	return b, nil
}

// urgency is the order in which rows are written anew.
var urgency = [...]int{Writing: 0, OnHold: 0, Done: 1, Confirmed: 2}

// older reports whether a store has less of a record than it has to have.
func older(has, want *Row, r *record) bool {
	switch {
	case r.unwritten:
		return true // restored has to know that it is written
	case !r.done && (has.State == Done || has.State == Confirmed), r.unheld && has.State == OnHold:
		return false
	default:
		return has.State != want.State || has.Attempts != want.Attempts || has.Message == nil && want.Message != nil
	}
}

// wanted returns the row that the store has to have of a record, and false if it needs none.
func (r *record) wanted() (Row, bool) {
	state := Writing
	switch {
	case !r.stored, r.unheld && r.attempts == 0:
		return Row{}, false
	case r.confirmed:
		state = Confirmed
	case r.done, r.unwritten:
		state = Done
	case r.owned != nil && !r.begun:
		state = OnHold
	}
	row := r.row(state)
	row.Known, row.Message = false, r.owned
	return row, true
}
