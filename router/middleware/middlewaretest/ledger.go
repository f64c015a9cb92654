package middlewaretest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// Ledger is a small ledger for tests. It forgets nothing, and Fail makes its calls fail. It is
// safe for concurrent use.
type Ledger struct {
	mu        sync.Mutex
	changed   chan struct{}
	records   map[middleware.LedgerKey]*record
	confirmed map[middleware.LedgerKey]int
	orders    int64
	fail      func(call string) error
}

type record struct {
	body         middleware.Digest
	order        int64
	holdFailed   bool // holding it failed
	attempts     int
	outputs      []middleware.Output
	reserved     bool
	done         bool
	commitFailed bool // committing it failed
	origin       middleware.Origin
	owned        *handlers.Held
}

// retryCommit records an outcome whose Commit failed.
func (l *Ledger) retryCommit(r *record) error {
	if r == nil || !r.commitFailed {
		return nil
	}
	if err := l.fail("commit"); err != nil {
		return handlers.Unavailable(err)
	}
	r.commitFailed, r.done, r.holdFailed = false, true, false
	return nil
}

var _ middleware.Ledger = (*Ledger)(nil)

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{
		changed: make(chan struct{}), records: map[middleware.LedgerKey]*record{}, confirmed: map[middleware.LedgerKey]int{},
		fail: func(string) error { return nil },
	}
}

// Fail makes each later Reserve, Resume, Begin, Commit, Hold and Confirm call f with its name in
// lower case, and fail with the error that f returns.
func (l *Ledger) Fail(f func(call string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = f
}

// Reserve claims key for one run.
func (l *Ledger) Reserve(ctx context.Context, key middleware.LedgerKey, body middleware.Digest, from middleware.Origin) (middleware.Claim, error) {
	for {
		l.mu.Lock()
		if err := l.fail("reserve"); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		r, changed := l.records[key], l.changed
		if r == nil {
			l.orders++
			r = &record{body: body, order: l.orders}
			l.records[key] = r
		}
		if err := l.retryCommit(r); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		claim := middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}
		switch {
		case r.holdFailed && r.attempts == 0:
			r.body, r.holdFailed = body, false
		case r.body != body:
			claim = middleware.Claim{State: middleware.ClaimReused}
		case r.done, r.owned != nil && !r.reserved:
			claim = middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}
		}
		reserved := r.reserved
		r.reserved = reserved || claim.State == middleware.ClaimReserved
		if !reserved && r.reserved {
			r.origin = from
		}
		l.mu.Unlock()
		if !reserved {
			return claim, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return middleware.Claim{}, context.Cause(ctx)
		}
	}
}

// Durable returns true, so that tests can cover what depends on it.
func (l *Ledger) Durable() bool { return true }

// Begin counts an attempt.
func (l *Ledger) Begin(key middleware.LedgerKey, _ bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail("begin"); err != nil {
		return 0, err
	}
	r := l.records[key]
	if r == nil || !r.reserved {
		return 0, errors.New("not reserved")
	}
	r.attempts++
	return r.attempts, nil
}

// Retract undoes an attempt.
func (l *Ledger) Retract(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.reserved && r.attempts > 0 {
		r.attempts--
	}
}

// Commit records the outcome of the run and ends the reservation.
func (l *Ledger) Commit(key middleware.LedgerKey, outputs []middleware.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[key]
	if r == nil || !r.reserved {
		return errors.New("not reserved")
	}
	r.reserved, r.commitFailed, r.outputs = false, true, outputs
	l.wakeWaiting()
	return l.retryCommit(r)
}

// Release ends the reservation, and forgets the record unless it is begun or owned.
func (l *Ledger) Release(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.reserved {
		if r.reserved = false; r.attempts == 0 && r.owned == nil && !r.holdFailed {
			delete(l.records, key)
		}
		l.wakeWaiting()
	}
}

func (l *Ledger) wakeWaiting() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Confirm counts the confirmations.
func (l *Ledger) Confirm(key middleware.LedgerKey, _ middleware.Retention) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail("confirm"); err != nil {
		return err
	}
	l.confirmed[key]++
	if r := l.records[key]; r != nil && r.done {
		r.owned = nil
	}
	return nil
}

// Hold makes the ledger the owner of the message, within the limits.
func (l *Ledger) Hold(key middleware.LedgerKey, h *handlers.Held, perKey, total int, outputs []middleware.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[key]
	if r == nil || !r.reserved {
		return errors.New("not reserved")
	}
	if err := l.fail("hold"); err != nil {
		r.holdFailed = true
		return err
	}
	if r.owned == nil {
		device, all := 0, 0
		for k, other := range l.records {
			if other.owned != nil && k.Pipeline == key.Pipeline {
				all++
				if k.Device == key.Device {
					device++
				}
			}
		}
		if device >= perKey || all >= total {
			return handlers.ErrHoldFull
		}
		h.ID, h.Key, h.Order = key.ID, key.Device, r.order
		r.owned, r.holdFailed, r.outputs = h, false, outputs
	}
	r.reserved = false
	l.wakeWaiting()
	return nil
}

// Resume claims a message that the ledger owns or that is unconfirmed.
func (l *Ledger) Resume(ctx context.Context, key middleware.LedgerKey) (middleware.Claim, error) {
	for {
		l.mu.Lock()
		if err := l.fail("resume"); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		r, changed := l.records[key], l.changed
		if err := l.retryCommit(r); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		switch {
		case r == nil || r.owned == nil && !r.reserved && !l.awaitsRedelivery(key, r):
			l.mu.Unlock()
			return middleware.Claim{}, handlers.Drop(errors.New("not owned"))
		case r.done:
			l.mu.Unlock()
			return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil
		case !r.reserved:
			r.reserved = true
			l.mu.Unlock()
			return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil
		}
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return middleware.Claim{}, context.Cause(ctx)
		}
	}
}

// awaitsRedelivery reports whether the source has to redeliver the message.
func (l *Ledger) awaitsRedelivery(key middleware.LedgerKey, r *record) bool {
	return !r.reserved && r.owned == nil && !r.commitFailed && (r.done && l.confirmed[key] == 0 || !r.done && r.attempts > 0)
}

// Unconfirmed returns the messages that their sources have to redeliver.
func (l *Ledger) Unconfirmed(pipeline string) []middleware.Unconfirmed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []middleware.Unconfirmed
	for key, r := range l.records {
		if key.Pipeline == pipeline && l.awaitsRedelivery(key, r) {
			all = append(all, middleware.Unconfirmed{Key: key, Origin: r.origin})
		}
	}
	return all
}

// Owned returns the messages of a pipeline that the ledger owns.
func (l *Ledger) Owned(_ context.Context, pipeline string) ([]*handlers.Held, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*handlers.Held
	for key, r := range l.records {
		if key.Pipeline == pipeline && r.owned != nil {
			h := *r.owned
			h.Ended, h.Begun = r.done, r.attempts > 0
			all = append(all, &h)
		}
	}
	slices.SortFunc(all, func(a, b *handlers.Held) int { return int(a.Order - b.Order) })
	return all, nil
}

// Disown forgets an owned message that no run has.
func (l *Ledger) Disown(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.owned != nil && !r.reserved && !r.done {
		delete(l.records, key)
	}
}

// State returns the state of a key's record: "", "reserved", "held", "begun", "done" or
// "confirmed".
func (l *Ledger) State(key middleware.LedgerKey) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r := l.records[key]; {
	case r == nil:
		return ""
	case r.reserved:
		return "reserved"
	case r.owned != nil && !r.done:
		return "held"
	case !r.done:
		return "begun"
	case l.confirmed[key] == 0:
		return "done"
	default:
		return "confirmed"
	}
}
