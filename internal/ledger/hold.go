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
	bytes      *transports.Budget
	byPipeline map[string]*ownedCounts
}

func newOwned() owned {
	return owned{bytes: transports.NewBudget(0), byPipeline: map[string]*ownedCounts{}}
}

type ownedCounts struct {
	total    int
	byDevice map[string]int
}

// add counts a message, even if that exceeds the limits.
func (o owned) add(key middleware.LedgerKey, h *handlers.Held) {
	o.bytes.Add(sizeOf(h))
	counts := o.byPipeline[key.Pipeline]
	if counts == nil {
		counts = &ownedCounts{byDevice: map[string]int{}}
		o.byPipeline[key.Pipeline] = counts
	}
	counts.total++
	counts.byDevice[key.Device]++
}

func (o owned) remove(key middleware.LedgerKey, h *handlers.Held) {
	o.bytes.Give(sizeOf(h))
	counts := o.byPipeline[key.Pipeline]
	counts.total--
	if counts.byDevice[key.Device]--; counts.byDevice[key.Device] == 0 {
		delete(counts.byDevice, key.Device)
	}
}

// checkLimits returns why the ledger can't own another message of the key's device, or nil.
func (o owned) checkLimits(key middleware.LedgerKey, h *handlers.Held, perKey, total int) error {
	counts := o.byPipeline[key.Pipeline]
	switch {
	case !o.bytes.Fits(sizeOf(h)):
		return fmt.Errorf("%w: the held messages of all devices take %d bytes of memory already", handlers.ErrHoldFull, o.bytes.Used())
	case counts == nil:
		return nil
	case counts.byDevice[key.Device] >= perKey:
		return fmt.Errorf("%w: %d are held for this device already", handlers.ErrHoldFull, counts.byDevice[key.Device])
	case counts.total >= total:
		return fmt.Errorf("%w: %d are held for all devices together already", handlers.ErrHoldFull, counts.total)
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

// minSavedSpace is how many bytes of white space a payload must have for compactPayload to remove
// them.
const minSavedSpace = 256

// compactPayload makes a message that is held for long as small as possible. It removes the white
// space between JSON tokens if there is much of it, and copies the payload, which may be a part of
// a larger buffer.
func compactPayload(h *handlers.Held) {
	var compact bytes.Buffer
	if json.Compact(&compact, h.Payload) == nil && compact.Len()+minSavedSpace <= len(h.Payload) {
		h.Payload = compact.Bytes()
	}
	h.Payload = bytes.Clone(h.Payload)
}

// LimitHeld sets the budget for the bytes of messages that the ledger owns. Messages from before
// the host's start count, too. The ledger keeps them even if they exceed the budget.
func (l *Ledger) LimitHeld(b *transports.Budget) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b.Add(l.owned.bytes.Used())
	l.owned.bytes = b
}

// setOwned records that the ledger owns the message h of the record.
func (r *record) setOwned(h *handlers.Held) {
	h.ID, h.Key, h.Order = r.key.ID, r.key.Device, r.number
	r.owned, r.holdFailed = h, false
}

// Hold makes the ledger the owner of a run's message; see middleware.Ledger.
func (l *Ledger) Hold(key middleware.LedgerKey, h *handlers.Held, perKey, total int, outputs []middleware.Output) error {
	if h != nil {
		compactPayload(h)
	}
	l.mu.Lock()
	r := l.reservedRecord(key)
	if r == nil {
		l.mu.Unlock()
		return fmt.Errorf("holding id %q: it isn't reserved", key.ID)
	}
	if r.owned != nil {
		defer l.mu.Unlock()
		if r.begun {
			r.begun = false
			l.queueChange(r.toRow(Held))
		}
		r.endReservation()
		return nil
	}
	if err := l.owned.checkLimits(key, h, perKey, total); err != nil {
		l.mu.Unlock()
		return err
	}
	l.owned.add(key, h) // before the write, so that other runs can't exceed the limits during it
	r.setOwned(h)
	row := r.toRow(Held)
	r.stored = true
	row.Outputs, row.Message = outputs, h
	l.mu.Unlock()
	if l.journal != nil {
		if err := l.journal.write(row, true); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			r.owned, r.holdFailed = nil, true
			l.owned.remove(key, h)
			return handlers.Unavailable(fmt.Errorf("recording that id %q is held: %w", key.ID, err))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.outputs, r.begun = outputs, false
	r.endReservation()
	return nil
}

// Resume claims a message that the ledger owns; see middleware.Ledger.
func (l *Ledger) Resume(ctx context.Context, key middleware.LedgerKey) (middleware.Claim, error) {
	return claimWhenFree(ctx, key, func() (middleware.Claim, <-chan struct{}, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		r, ok := l.records[key]
		switch {
		case !ok || r.owned == nil && !l.awaitsRedelivery(r):
			return middleware.Claim{}, nil, handlers.Drop(fmt.Errorf("the ledger no longer has a message with id %q", key.ID))
		case r.reserved:
			return middleware.Claim{}, r.reservationEnd(), nil
		case r.unwritten:
			return middleware.Claim{}, nil, l.outputsUnavailable(key, cmp.Or(l.journal.health(), errUnwritten))
		case r.done:
			return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil, nil
		default:
			l.reserve(r)
			return middleware.Claim{State: middleware.ClaimReserved, Begun: r.attempts}, nil, nil
		}
	})
}

// awaitsRedelivery reports whether the source has to redeliver the record's message, since its
// outputs are unknown or unconfirmed.
func (l *Ledger) awaitsRedelivery(r *record) bool {
	return r.owned == nil && (r.reserved || r.done && !r.confirmed || r.isInterrupted())
}

// Unconfirmed returns the messages that the source has to redeliver; see middleware.Ledger.
func (l *Ledger) Unconfirmed(pipeline string) []middleware.Unconfirmed {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []middleware.Unconfirmed
	for r := range l.interrupted[pipeline] {
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

// Owned returns the messages of a pipeline that the ledger owns; see middleware.Ledger.
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

// Disown forgets an owned message; see middleware.Ledger.
func (l *Ledger) Disown(key middleware.LedgerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, ok := l.records[key]
	if !ok || r.owned == nil || r.reserved || r.done {
		return
	}
	delete(l.records, key)
	l.owned.remove(key, r.owned)
	l.queueChange(Row{Number: r.number})
}
