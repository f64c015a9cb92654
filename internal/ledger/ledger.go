// Package ledger keeps the host's records of messages by id: which of them run now, and what those that ran produced. The dedup
// middleware asks it, so that a message that comes twice is handled once.
//
// [New] returns one in memory, which promises nothing across a restart.
package ledger

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pentrough/pentrough/router/middleware"
)

// Memory is a ledger in memory. It is safe for concurrent use.
type Memory struct {
	// start is what times are counted from, on the monotonic clock: setting the wall clock changes nothing here.
	start time.Time

	mu      sync.Mutex
	records map[middleware.LedgerKey]*record
	// confirmed are the records that may be forgotten, by pipeline.
	confirmed map[string]*expiry
}

var _ middleware.Ledger = (*Memory)(nil)

// record is one id. It is reserved, then done, then confirmed.
type record struct {
	key     middleware.LedgerKey
	digest  middleware.Digest
	outputs []middleware.Output
	done    bool
	// ended is closed when the reservation ends; nil as long as nobody waits for it.
	ended chan struct{}
	// confirmed is the record's place in its pipeline's expiry, at the time confirmedAt; nil before it is confirmed.
	confirmed   *list.Element
	confirmedAt time.Duration
}

// expiry is the confirmed records of one pipeline, the oldest first, and the bounds that were named last.
type expiry struct {
	order  list.List
	window time.Duration
	limit  int
}

// New returns an empty ledger.
func New() *Memory {
	return &Memory{
		start: time.Now(), records: map[middleware.LedgerKey]*record{}, confirmed: map[string]*expiry{},
	}
}

// Reserve claims key for one run; see middleware.Ledger.
func (m *Memory) Reserve(ctx context.Context, key middleware.LedgerKey, body middleware.Digest) (middleware.Claim, error) {
	for {
		claim, ended := m.claim(key, body)
		if ended == nil {
			return claim, nil
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return middleware.Claim{}, fmt.Errorf("waiting for the run of id %q: %w", key.ID, context.Cause(ctx))
		}
	}
}

// claim makes a claim, or returns the end of the run that holds the key.
func (m *Memory) claim(key middleware.LedgerKey, body middleware.Digest) (middleware.Claim, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.confirmed[key.Pipeline]; e != nil {
		m.forget(e)
	}
	r, ok := m.records[key]
	switch {
	case !ok:
		m.records[key] = &record{key: key, digest: body}
		return middleware.Claim{State: middleware.ClaimReserved}, nil
	case !r.done:
		if r.ended == nil {
			r.ended = make(chan struct{})
		}
		return middleware.Claim{}, r.ended
	case r.digest != body:
		return middleware.Claim{State: middleware.ClaimReused}, nil
	default:
		return middleware.Claim{State: middleware.ClaimDone, Outputs: r.outputs}, nil
	}
}

// Commit records what the run produced and ends the reservation.
func (m *Memory) Commit(_ context.Context, key middleware.LedgerKey, outputs []middleware.Output) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[key]
	if !ok || r.done {
		return fmt.Errorf("recording the outputs of id %q: it isn't reserved", key.ID)
	}
	r.done, r.outputs = true, outputs
	r.end()
	return nil
}

// Release forgets the reservation.
func (m *Memory) Release(key middleware.LedgerKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.records[key]; ok && !r.done {
		delete(m.records, key)
		r.end()
	}
}

// end wakes all who wait for the reservation's end.
func (r *record) end() {
	if r.ended != nil {
		close(r.ended)
		r.ended = nil
	}
}

// Confirm says that the record may be forgotten by and by. Confirming it again starts its window anew.
func (m *Memory) Confirm(key middleware.LedgerKey, window time.Duration, limit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[key]
	if !ok || !r.done {
		return
	}
	e := m.confirmed[key.Pipeline]
	if e == nil {
		e = &expiry{}
		m.confirmed[key.Pipeline] = e
	}
	e.window, e.limit = window, limit
	r.confirmedAt = time.Since(m.start)
	if r.confirmed == nil {
		r.confirmed = e.order.PushBack(r)
	} else {
		e.order.MoveToBack(r.confirmed)
	}
	m.forget(e)
}

// forget drops confirmed records that are too old or too many. Each is looked at once more than it is dropped, so the cost is
// that of the calls that added them.
func (m *Memory) forget(e *expiry) {
	now := time.Since(m.start)
	for front := e.order.Front(); front != nil; front = e.order.Front() {
		r := front.Value.(*record)
		if e.order.Len() <= e.limit+1 && now-r.confirmedAt < e.window {
			return
		}
		e.order.Remove(front)
		delete(m.records, r.key)
	}
}
