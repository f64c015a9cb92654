package ledger

import (
	"container/list"
	"math"
	"time"

	"github.com/pentrough/pentrough/router/middleware"
)

// finished has the done and the confirmed records of one pipeline, each list with the oldest
// first. keep says for how long it keeps the confirmed ones.
type finished struct {
	unconfirmed, confirmed list.List
	keep                   middleware.Retention
}

// addFinished adds a record that is done to the end of its pipeline's unconfirmed ones.
func (l *Ledger) addFinished(r *record) *finished {
	f := l.finished[r.key.Pipeline]
	if f == nil {
		f = &finished{keep: keepAll}
		l.finished[r.key.Pipeline] = f
	}
	r.element = f.unconfirmed.PushBack(r)
	return f
}

// keepAll is the retention of loaded records. It keeps all of them. It applies until the first
// Confirm of the pipeline gives another retention. Its clock shows 0, as the clock of each
// pipeline does at the start.
var keepAll = middleware.Retention{Period: math.MaxInt64, Limit: math.MaxInt - 1, Clock: func() time.Duration { return 0 }}

// markConfirmed moves a record to the end of the confirmed ones.
func (f *finished) markConfirmed(r *record) {
	r.confirmedAt = f.keep.Clock()
	if r.confirmed {
		f.confirmed.MoveToBack(r.element)
	} else {
		f.unconfirmed.Remove(r.element)
		r.element, r.confirmed = f.confirmed.PushBack(r), true
	}
}

// dropExpired forgets the confirmed records that are too old or too many. It stops at the first
// one that stays, so its cost is in proportion to the records that it forgets.
func (l *Ledger) dropExpired(f *finished) {
	now := f.keep.Clock()
	for front := f.confirmed.Front(); front != nil; front = f.confirmed.Front() {
		if f.confirmed.Len() <= f.keep.Limit+1 && now-front.Value.(*record).confirmedAt < f.keep.Period {
			return
		}
		l.dropOldest(&f.confirmed)
	}
}

// dropOldest forgets the oldest record of a list.
func (l *Ledger) dropOldest(oldest *list.List) {
	r := oldest.Remove(oldest.Front()).(*record)
	delete(l.records, r.key)
	if r.owned != nil {
		l.owned.remove(r.key, r.owned)
	}
	l.queueChange(Row{Number: r.number})
}
