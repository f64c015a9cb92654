package ledger

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// owned counts the messages that the ledger owns, by pipeline and device, and their bytes.
type owned struct {
	bytes *transports.Budget
	of    map[string]*ownedOf
}

func newOwned() owned { return owned{bytes: transports.NewBudget(0), of: map[string]*ownedOf{}} }

type ownedOf struct {
	total    int
	byDevice map[string]int
}

// add counts a message whatever the bounds are.
func (o owned) add(key middleware.LedgerKey, h *handlers.Held) {
	o.bytes.Add(sizeOf(h))
	of := o.of[key.Pipeline]
	if of == nil {
		of = &ownedOf{byDevice: map[string]int{}}
		o.of[key.Pipeline] = of
	}
	of.total++
	of.byDevice[key.Device]++
}

func (o owned) remove(key middleware.LedgerKey, h *handlers.Held) {
	o.bytes.Give(sizeOf(h))
	of := o.of[key.Pipeline]
	of.total--
	if of.byDevice[key.Device]--; of.byDevice[key.Device] == 0 {
		delete(of.byDevice, key.Device)
	}
}

// full returns why a message of a key's device can't be owned, too, or nil.
func (o owned) full(key middleware.LedgerKey, h *handlers.Held, perKey, total int) error {
	of := o.of[key.Pipeline]
	switch {
	case !o.bytes.Fits(sizeOf(h)):
		return fmt.Errorf("%w: %d bytes are in memory for all devices together", handlers.ErrHoldFull, o.bytes.Used())
	case of == nil:
		return nil
	case of.byDevice[key.Device] >= perKey:
		return fmt.Errorf("%w: %d are for this device", handlers.ErrHoldFull, of.byDevice[key.Device])
	case of.total >= total:
		return fmt.Errorf("%w: %d are for all devices together", handlers.ErrHoldFull, of.total)
	default:
		return nil
	}
}

// sizeOf returns about how many bytes of memory a message takes.
func sizeOf(h *handlers.Held) int {
	n := len(h.Payload) + len(h.UUID) + len(h.Awaits) + len(h.Sets)
	for key, value := range h.Metadata {
		n += len(key) + len(value)
	}
	return n
}

// worthwhile is how many bytes of white space are left out of a payload. With fewer it stays as it came.
const worthwhile = 256

// slim has a message keep no more memory than it needs: it is held for long. White space between the
// tokens of JSON says nothing, and is left out if there is much of it. What remains is copied, as the
// payload may be a part of something larger.
func slim(h *handlers.Held) {
	var compact bytes.Buffer
	if json.Compact(&compact, h.Payload) == nil && compact.Len()+worthwhile <= len(h.Payload) {
		h.Payload = compact.Bytes()
	}
	h.Payload = bytes.Clone(h.Payload)
}

// LimitHeld has a budget bound the bytes of messages that the ledger owns. What the store has from
// before counts too, and is kept even if it is more.
func (l *Ledger) LimitHeld(b *transports.Budget) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.Add(l.owned.bytes.Used())
	l.owned.bytes = b
}

// own notes that the ledger owns the record's message.
func (r *record) own(h *handlers.Held) {
	h.ID, h.Key, h.Order = r.key.ID, r.key.Device, r.number
	r.owned, r.unheld = h, false
}

// Hold has the ledger own the message of a run; see middleware.Ledger.
func (l *Ledger) Hold(key middleware.LedgerKey, h *handlers.Held, perKey, total int, outputs []middleware.Output) error {
	if h != nil {
		slim(h)
	}
	l.mu.Lock()
	r := l.running(key)
	if r == nil {
		l.mu.Unlock()
		return fmt.Errorf("holding id %q: it isn't reserved", key.ID)
	}
	if r.owned != nil {
		defer l.mu.Unlock()
		if r.begun {
			r.begun = false
			l.later(r.row(OnHold))
		}
		r.release()
		return nil
	}
	if err := l.owned.full(key, h, perKey, total); err != nil {
		l.mu.Unlock()
		return err
	}
	l.owned.add(key, h) // so that the bound holds while it is written
	r.own(h)
	row := r.row(OnHold)
	r.stored = true
	row.Outputs, row.Message = outputs, h
	l.mu.Unlock()
	if l.journal != nil {
		if err := l.journal.write(row, true); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			r.owned, r.unheld = nil, true
			l.owned.remove(key, h)
			return handlers.Unavailable(fmt.Errorf("recording that id %q is held: %w", key.ID, err))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.outputs, r.begun = outputs, false
	r.release()
	return nil
}

// Resume claims a message that the ledger owns; see middleware.Ledger.
func (l *Ledger) Resume(ctx context.Context, key middleware.LedgerKey) (middleware.Claim, error) {
	return alone(ctx, key, func() (middleware.Claim, <-chan struct{}, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		r, ok := l.records[key]
		switch {
		case !ok || r.owned == nil && !l.unconfirmed(r):
			return middleware.Claim{}, nil, handlers.Drop(fmt.Errorf("the ledger doesn't hold id %q any more", key.ID))
		case r.running:
			return middleware.Claim{}, r.end(), nil
		case r.unwritten:
			return middleware.Claim{}, nil, l.unavailable(key, cmp.Or(l.journal.health(), errUnwritten))
		case r.done:
			return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil, nil
		default:
			l.run(r)
			return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil, nil
		}
	})
}

// unconfirmed reports whether the record's message has to be redelivered: its outputs are unknown
// or unconfirmed.
func (l *Ledger) unconfirmed(r *record) bool {
	return r.owned == nil && (r.running || r.done && !r.confirmed || r.isCut())
}

// Unconfirmed implements middleware.Ledger.
func (l *Ledger) Unconfirmed(pipeline string) []middleware.Unconfirmed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []middleware.Unconfirmed
	for r := range l.cut[pipeline] {
		all = append(all, middleware.Unconfirmed{Key: r.key, Origin: r.origin})
	}
	if f := l.finished[pipeline]; f != nil {
		for e := f.unconfirmed.Front(); e != nil; e = e.Next() {
			if r := e.Value.(*record); r.owned == nil {
				all = append(all, middleware.Unconfirmed{Key: r.key, Origin: r.origin})
			}
		}
	}
	return all
}

// Owned returns what the ledger owns of a pipeline; see middleware.Ledger.
func (l *Ledger) Owned(ctx context.Context, pipeline string) ([]*handlers.Held, error) {
	select {
	case <-l.opened:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the ledger: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*handlers.Held
	for _, r := range l.records {
		if r.key.Pipeline == pipeline && r.owned != nil {
			h := *r.owned
			h.Ended, h.Begun = r.done, r.attempts > 0
			all = append(all, &h)
		}
	}
	slices.SortFunc(all, func(a, b *handlers.Held) int { return cmp.Compare(a.Order, b.Order) })
	return all, nil
}

// Disown forgets a message; see middleware.Ledger.
func (l *Ledger) Disown(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[key]
	if !ok || r.owned == nil || r.running || r.done {
		return
	}
	delete(l.records, key)
	l.owned.remove(key, r.owned)
	l.later(Row{Number: r.number})
}
