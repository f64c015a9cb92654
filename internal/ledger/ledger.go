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

// mostUnconfirmed is how many records of one pipeline may wait for their confirmation. That is more than a broker hands out unacked (65,535),
// so what is forgotten beyond it belongs to messages that went away unacked and never came back.
const mostUnconfirmed = 100_000

// Memory is a ledger in memory. It is safe for concurrent use.
type Memory struct {
	// start is what times are counted from, on the monotonic clock: setting the wall clock changes nothing here.
	start time.Time

	mostUnconfirmed int

	mu      sync.Mutex
	records map[middleware.LedgerKey]*record
	// finished are the records that are done, by pipeline.
	finished map[string]*finished
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
	// place is the record's place among those that are done, in unconfirmed or, since confirmedAt, in confirmed.
	place       *list.Element
	confirmed   bool
	confirmedAt time.Duration
}

// finished is the records of one pipeline that are done, the oldest first, and the bounds of the confirmed ones that were named last.
type finished struct {
	unconfirmed, confirmed list.List
	window                 time.Duration
	limit                  int
}

// New returns an empty ledger.
func New() *Memory {
	return &Memory{
		start: time.Now(), mostUnconfirmed: mostUnconfirmed, records: map[middleware.LedgerKey]*record{}, finished: map[string]*finished{},
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
	if f := m.finished[key.Pipeline]; f != nil {
		m.forget(f)
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
	f := m.finished[key.Pipeline]
	if f == nil {
		f = &finished{}
		m.finished[key.Pipeline] = f
	}
	r.place = f.unconfirmed.PushBack(r)
	if f.unconfirmed.Len() > m.mostUnconfirmed {
		m.drop(&f.unconfirmed)
	}
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
	f := m.finished[key.Pipeline]
	f.window, f.limit = window, limit
	r.confirmedAt = time.Since(m.start)
	if r.confirmed {
		f.confirmed.MoveToBack(r.place)
	} else {
		f.unconfirmed.Remove(r.place)
		r.place, r.confirmed = f.confirmed.PushBack(r), true
	}
	m.forget(f)
}

// forget drops confirmed records that are too old or too many. Each is looked at once more than it is dropped, so the cost is
// that of the calls that added them.
func (m *Memory) forget(f *finished) {
	now := time.Since(m.start)
	for front := f.confirmed.Front(); front != nil; front = f.confirmed.Front() {
		if f.confirmed.Len() <= f.limit+1 && now-front.Value.(*record).confirmedAt < f.window {
			return
		}
		m.drop(&f.confirmed)
	}
}

// drop forgets the oldest record of a list.
func (m *Memory) drop(l *list.List) {
	r := l.Remove(l.Front()).(*record)
	delete(m.records, r.key)
}
