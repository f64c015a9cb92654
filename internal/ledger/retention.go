package ledger

import (
	"container/list"
	"math"
	"time"

	"github.com/pentrough/pentrough/router/middleware"
)

// finished is the records of one pipeline that are done, the oldest first, and for how long it keeps the confirmed ones.
type finished struct {
	unconfirmed, confirmed list.List
	keep                   middleware.Retention
}

// finish puts a record behind those that were done before.
func (l *Ledger) finish(r *record) *finished {
	f := l.finished[r.key.Pipeline]
	if f == nil {
		f = &finished{keep: untold}
		l.finished[r.key.Pipeline] = f
	}
	r.place = f.unconfirmed.PushBack(r)
	return f
}

// untold is the retention of what is loaded, until its pipeline tells its own: everything stays. No pipeline's clock ran before.
var untold = middleware.Retention{Window: math.MaxInt64, Limit: math.MaxInt - 1, Clock: func() time.Duration { return 0 }}

// confirm puts a record behind those that were confirmed before.
func (f *finished) confirm(r *record) {
	r.confirmedAt = f.keep.Clock()
	if r.confirmed {
		f.confirmed.MoveToBack(r.place)
	} else {
		f.unconfirmed.Remove(r.place)
		r.place, r.confirmed = f.confirmed.PushBack(r), true
	}
}

// forget drops confirmed records that are too old or too many. Each is looked at once more than it is dropped, so the cost is
// that of the calls that added them.
func (l *Ledger) forget(f *finished) {
	now := f.keep.Clock()
	for front := f.confirmed.Front(); front != nil; front = f.confirmed.Front() {
		if f.confirmed.Len() <= f.keep.Limit+1 && now-front.Value.(*record).confirmedAt < f.keep.Window {
			return
		}
		l.drop(&f.confirmed)
	}
}

// drop forgets the oldest record of a list.
func (l *Ledger) drop(oldest *list.List) {
	r := oldest.Remove(oldest.Front()).(*record)
	delete(l.records, r.key)
	if r.owned != nil {
		l.owned.remove(r.key, r.owned)
	}
	l.later(Row{Number: r.number})
}
