package ledger

import (
	"errors"
	"fmt"
)

// errOther means that a store has rows that this ledger didn't write.
var errOther = errors.New("the store has other rows than this host wrote: it is another one; restart the host to use it, which forgets what isn't in it")

// missing returns the changes that bring a store's rows to what is in memory. Memory
// has every row: all were read at the start, and no other process writes to the store. So the store
// may have lost rows, or have them in an older state, but it has none that memory doesn't know,
// except those that were forgotten since.
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
		if has := there[r.number]; has == nil || has.State != want.State || has.Attempts != want.Attempts {
			b.Put = append(b.Put, want)
		}
	}
	return b, nil
}

// wanted returns the row that the store has to have of a record, if any.
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
