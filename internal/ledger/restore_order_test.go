package ledger

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/pentrough/pentrough/handlers"
)

// A change that waited during an outage is older than the rows in memory when the store works
// again. It must not be written after them.
func TestAnOldChangeDoesNotReplaceAnOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{rows: map[int64]Row{}}
		l := Open(s, slog.New(slog.DiscardHandler))
		<-l.Opened()
		key := begun(t, l, "1", 1)
		s.fail(errFull)
		l.Retract(key)
		if err := l.Commit(key, outputs); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Fatalf("commit on a full disk: %v", err)
		}
		s.fail(nil)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if r := s.rows[1]; r.State != Done || len(r.Outputs) != 1 {
			t.Errorf("the row is %s with %v", r.State, r.Outputs)
		}
	})
}

// hookedStore calls apply before it applies a batch. EnsureReserve fails with noRoom.
type hookedStore struct {
	*brokenStore
	apply  func()
	noRoom error
}

func (h *hookedStore) Apply(ctx context.Context, b Batch, sync bool) error {
	if f := h.apply; f != nil {
		h.apply = nil
		f()
	}
	return h.brokenStore.Apply(ctx, b, sync)
}

func (h *hookedStore) EnsureReserve() error { return h.noRoom }

// A run may end while the store gets the rows that it lacks. Its outcome counts as recorded only
// when it is written, too.
func TestAnOutcomeThatComesWhileTheStoreIsRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &hookedStore{brokenStore: &brokenStore{rows: map[int64]Row{}}}
		l := Open(s, slog.New(slog.DiscardHandler))
		<-l.Opened()
		first, second := begun(t, l, "1", 1), begun(t, l, "2", 1)
		s.fail(errFull)
		if err := l.Commit(first, outputs); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Fatalf("commit on a full disk: %v", err)
		}
		committed := make(chan error, 1)
		s.apply = func() { // it restores the first one
			go func() { committed <- l.Commit(second, outputs) }()
			synctest.Wait()
		}
		s.noRoom = errFull
		s.fail(nil)
		if err := <-committed; !errors.Is(err, errFull) {
			t.Errorf("it isn't written, and Commit returns %v", err)
		}
		s.noRoom = nil
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if r := s.rows[2]; r.State != Done {
			t.Errorf("the row is %s", r.State)
		}
	})
}
