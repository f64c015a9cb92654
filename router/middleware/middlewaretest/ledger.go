package middlewaretest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

// Ledger is a small ledger that forgets nothing and can be told to fail. It is safe for concurrent use.
type Ledger struct {
	mu        sync.Mutex
	changed   chan struct{}
	records   map[middleware.LedgerKey]*record
	confirmed map[middleware.LedgerKey]int
	orders    int64
	fail      func(call string) error
}

type record struct {
	body     middleware.Digest
	order    int64
	unheld   bool // holding it failed
	attempts int
	outputs  []middleware.Output
	held     bool
	done     bool
	failed   bool // committing it failed
	from     middleware.Origin
	owned    *handlers.Held
}

// commit makes up for a commit that failed.
func (l *Ledger) commit(r *record) error {
	if r == nil || !r.failed {
		return nil
	}
	if err := l.fail("commit"); err != nil {
		return handlers.Unavailable(err)
	}
	r.failed, r.done, r.unheld = false, true, false
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

// Fail has every later call of "reserve", "resume", "begin", "commit", "hold" and "confirm" ask f, and return its error.
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
		if err := l.commit(r); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		claim := middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}
		switch {
		case r.unheld && r.attempts == 0:
			r.body, r.unheld = body, false
		case r.body != body:
			claim = middleware.Claim{State: middleware.ClaimReused}
		case r.done, r.owned != nil && !r.held:
			claim = middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}
		}
		held := r.held
		r.held = held || claim.State == middleware.ClaimReserved
		if !held && r.held {
			r.from = from
		}
		l.mu.Unlock()
		if !held {
			return claim, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return middleware.Claim{}, context.Cause(ctx)
		}
	}
}

// Durable says that it is, for what depends on that.
func (l *Ledger) Durable() bool { return true }

// Begin counts an attempt.
func (l *Ledger) Begin(key middleware.LedgerKey, _ bool) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail("begin"); err != nil {
		return 0, err
	}
	r := l.records[key]
	if r == nil || !r.held {
		return 0, errors.New("not reserved")
	}
	r.attempts++
	return r.attempts, nil
}

// Retract takes an attempt back.
func (l *Ledger) Retract(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.held && r.attempts > 0 {
		r.attempts--
	}
}

// Commit records what the run produced and ends the reservation.
func (l *Ledger) Commit(key middleware.LedgerKey, outputs []middleware.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[key]
	if r == nil || !r.held {
		return errors.New("not reserved")
	}
	r.held, r.failed, r.outputs = false, true, outputs
	l.wake()
	return l.commit(r)
}

// Release ends the reservation, and forgets it if nothing began under it.
func (l *Ledger) Release(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.held {
		if r.held = false; r.attempts == 0 && r.owned == nil && !r.unheld {
			delete(l.records, key)
		}
		l.wake()
	}
}

func (l *Ledger) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// Confirm counts.
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

// Hold owns the message, within the bounds.
func (l *Ledger) Hold(key middleware.LedgerKey, h *handlers.Held, perKey, total int, outputs []middleware.Output) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.records[key]
	if r == nil || !r.held {
		return errors.New("not reserved")
	}
	if err := l.fail("hold"); err != nil {
		r.unheld = true
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
		r.owned, r.unheld, r.outputs = h, false, outputs
	}
	r.held = false
	l.wake()
	return nil
}

// Resume claims an owned message.
func (l *Ledger) Resume(ctx context.Context, key middleware.LedgerKey) (middleware.Claim, error) {
	for {
		l.mu.Lock()
		if err := l.fail("resume"); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		r, changed := l.records[key], l.changed
		if err := l.commit(r); err != nil {
			l.mu.Unlock()
			return middleware.Claim{}, err
		}
		switch {
		case r == nil || r.owned == nil && !r.held && !l.unconfirmed(key, r):
			l.mu.Unlock()
			return middleware.Claim{}, handlers.Drop(errors.New("not owned"))
		case r.done:
			l.mu.Unlock()
			return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil
		case !r.held:
			r.held = true
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

// unconfirmed reports whether the message's source has to deliver it again.
func (l *Ledger) unconfirmed(key middleware.LedgerKey, r *record) bool {
	return !r.held && r.owned == nil && !r.failed && (r.done && l.confirmed[key] == 0 || !r.done && r.attempts > 0)
}

// Unconfirmed returns the messages whose sources have to deliver them again.
func (l *Ledger) Unconfirmed(pipeline string) []middleware.Unconfirmed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []middleware.Unconfirmed
	for key, r := range l.records {
		if key.Pipeline == pipeline && l.unconfirmed(key, r) {
			all = append(all, middleware.Unconfirmed{Key: key, Origin: r.from})
		}
	}
	return all
}

// Owned returns what is owned of a pipeline.
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

// Disown forgets an owned message that nobody runs.
func (l *Ledger) Disown(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.records[key]; r != nil && r.owned != nil && !r.held && !r.done {
		delete(l.records, key)
	}
}

// State says what is known of a key: "", "reserved", "held", "begun", "done" or "confirmed".
func (l *Ledger) State(key middleware.LedgerKey) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r := l.records[key]; {
	case r == nil:
		return ""
	case r.held:
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
