package ledger

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/router/middleware/middlewaretest"
)

// stores has the stores that outlive a process. Each function starts the servers that they need,
// and returns a function that makes stores with the same rows.
var stores = map[string]func(t *testing.T) func(t *testing.T) func() Store{
	"sqlite": func(*testing.T) func(t *testing.T) func() Store {
		return func(t *testing.T) func() Store {
			path := filepath.Join(t.TempDir(), "ledger.db")
			return func() Store { return NewSQLite(path, "gateway-1") }
		}
	},
	"postgres": func(t *testing.T) func(t *testing.T) func() Store {
		server := testenv.NewPostgres(t)
		return func(t *testing.T) func() Store {
			return func() Store { return NewPostgres(server.URL, t.Name()) }
		}
	},
}

// open returns a ledger after its store was opened.
func open(t testing.TB, s Store) *Ledger {
	t.Helper()
	l := Open(s, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	await.That(t, "the ledger's store is open", func() (any, bool) {
		err := l.Health()
		return err, err == nil
	})
	return l
}

func TestStoresKeepTheContract(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			build := start(t)
			middlewaretest.RunLedger(t, func(t *testing.T) middleware.Ledger { return open(t, build(t)()) })
		})
	}
}

var outputs = []middleware.Output{{UUID: "u", Metadata: map[string]string{"k": "v"}, Payload: []byte("x"), Destination: "a:b"}}

// originOf returns the origin of a message with this id. Its texts need escapes in JSON.
func originOf(id string) middleware.Origin {
	return middleware.Origin{UUID: id, CorrelationID: `"` + id, ReplyTo: "\n", TraceParent: "é", Keep: "group"}
}

// begun reserves and begins a key.
func begun(t *testing.T, l *Ledger, id string, attempt int) middleware.LedgerKey {
	t.Helper()
	key := middleware.LedgerKey{Pipeline: "p", ID: id, Device: "d"}
	claim, err := l.Reserve(t.Context(), key, middleware.Digest{1}, originOf(id))
	if err != nil || claim.State != middleware.ClaimReserved {
		t.Fatalf("%s: claim %+v, %v", id, claim, err)
	}
	if got, err := l.Begin(key, attempt%2 == 0); err != nil || got != attempt {
		t.Fatalf("%s: attempt %d, %v, want %d", id, got, err, attempt)
	}
	return key
}

func TestWhatAStoreKeepsOutlivesTheProcess(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			again := start(t)(t)
			first := open(t, again())
			begun(t, first, "writing", 1)
			retracted := begun(t, first, "retracted", 1)
			first.Retract(retracted)
			released := begun(t, first, "released", 1)
			first.Retract(released)
			first.Release(released)
			failed := begun(t, first, "failed", 1)
			first.Release(failed)
			done := begun(t, first, "done", 1)
			confirmed := begun(t, first, "confirmed", 1)
			old := begun(t, first, "old", 1)
			for _, key := range []middleware.LedgerKey{done, old, confirmed} {
				if err := first.Commit(key, outputs); err != nil {
					t.Fatal(err)
				}
			}
			confirm(t, first, old, time.Hour, 1)
			confirm(t, first, confirmed, time.Hour, 0)
			if err := first.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			second := open(t, again())
			origins := map[string]middleware.Origin{}
			for _, u := range second.Unconfirmed("p") {
				origins[u.Key.ID] = u.Origin
			}
			if diff := cmp.Diff(map[string]middleware.Origin{"writing": originOf("writing"), "failed": originOf("failed"), "done": originOf("done")}, origins); diff != "" {
				t.Error(diff)
			}
			begun(t, second, "writing", 2)
			begun(t, second, "retracted", 1)
			begun(t, second, "released", 1)
			begun(t, second, "failed", 2)
			for _, key := range []middleware.LedgerKey{done, confirmed} {
				claim, err := second.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{})
				if err != nil || claim.State != middleware.ClaimDone {
					t.Errorf("%s: claim %+v, %v", key.ID, claim, err)
				}
				if diff := cmp.Diff(outputs, claim.Outputs); diff != "" {
					t.Errorf("%s: %s", key.ID, diff)
				}
			}
			if claim, err := second.Reserve(t.Context(), done, middleware.Digest{2}, middleware.Origin{}); err != nil || claim.State != middleware.ClaimReused {
				t.Errorf("another body: claim %+v, %v", claim, err)
			}
			// With a limit of 1, two confirmed records may be kept: the next Confirm forgets the
			// oldest.
			extra := begun(t, second, "extra", 1)
			if err := second.Commit(extra, nil); err != nil {
				t.Fatal(err)
			}
			confirm(t, second, extra, time.Hour, 1)
			if err := second.Close(t.Context()); err != nil {
				t.Fatal(err)
			}

			third := open(t, again())
			begun(t, third, "old", 1)
		})
	}
}

func TestOneProcessAtATimeUsesAStore(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			again := start(t)(t)
			open(t, again())
			second := again()
			if rows, err := second.Open(t.Context()); err == nil {
				t.Errorf("opened with %d rows", len(rows))
			} else {
				t.Log(err)
			}
		})
	}
}

// brokenStore is a store in memory that fails as long as the test wants.
type brokenStore struct {
	mu      sync.Mutex
	err     error
	rows    map[int64]Row
	batches int
	synced  int
}

func (b *brokenStore) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *brokenStore) Open(context.Context) ([]Row, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.rows)), b.err
}

func (b *brokenStore) Close() error { return nil }

func (b *brokenStore) EnsureReserve() error { return nil }

func (b *brokenStore) Check(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *brokenStore) Apply(_ context.Context, batch Batch, sync bool) error {
	time.Sleep(time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches++
	if sync {
		b.synced++
	}
	if b.err != nil {
		return b.err
	}
	for _, n := range batch.Remove {
		delete(b.rows, n)
	}
	for _, r := range batch.Put {
		b.rows[r.Number] = r
	}
	for _, n := range batch.Confirm {
		r := b.rows[n]
		r.State = Confirmed
		b.rows[n] = r
	}
	return nil
}

var errFull = errors.New("no space left on device")

func TestADeadStoreIsUnavailableAndRecoversByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{err: errFull, rows: map[int64]Row{}}
		l := Open(s, slog.New(slog.DiscardHandler))
		defer l.Close(t.Context())
		time.Sleep(time.Minute)
		key := middleware.LedgerKey{Pipeline: "p", ID: "1"}
		if _, err := l.Reserve(t.Context(), key, middleware.Digest{}, middleware.Origin{}); handlers.KindOf(err) != handlers.KindUnavailable || !errors.Is(err, errFull) {
			t.Errorf("before it is open: %v", err)
		}
		s.fail(nil)
		time.Sleep(2 * retryLast)
		if err := l.Health(); err != nil {
			t.Errorf("health: %v", err)
		}
		key = begun(t, l, "1", 1)
		begunDone := begun(t, l, "done", 1)
		if err := l.Commit(begunDone, outputs); err != nil {
			t.Error(err)
		}

		s.fail(errFull)
		if err := l.Commit(key, outputs); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Errorf("commit on a full disk: %v", err)
		}
		other := middleware.LedgerKey{Pipeline: "p", ID: "2"}
		if _, err := l.Reserve(t.Context(), other, middleware.Digest{}, middleware.Origin{}); err != nil {
			t.Error(err)
		}
		if _, err := l.Begin(other, true); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Errorf("begin on a full disk: %v", err)
		}
		if err := l.Confirm(begunDone, keep(time.Hour, 10)); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Errorf("confirm on a full disk: %v", err)
		}
		l.Release(other) // its removal is tried until it works
		if err := l.Health(); !errors.Is(err, errFull) {
			t.Errorf("health: %v", err)
		}
		time.Sleep(time.Minute)
		s.mu.Lock()
		if s.batches > 40 {
			t.Errorf("%d attempts in a minute", s.batches)
		}
		s.mu.Unlock()

		s.fail(nil)
		if _, err := l.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{}); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Errorf("before the outputs are written: %v", err)
		}
		time.Sleep(2 * retryLast)
		confirm(t, l, key, time.Hour, 10)
		confirm(t, l, begunDone, time.Hour, 10)
		if err := l.Health(); err != nil {
			t.Errorf("health: %v", err)
		}
		if len(s.rows) != 2 || s.rows[1].State != Confirmed || s.rows[2].State != Confirmed {
			t.Errorf("the store has %+v", s.rows)
		}
	})
}

// A message whose Hold failed keeps its place in front of one that was held later, also in a run
// with another body.
func TestWhatCouldNotBeHeldKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{rows: map[int64]Row{}}
		l := open(t, s)
		older, younger := begun(t, l, "older", 1), begun(t, l, "younger", 1)
		hold := func(key middleware.LedgerKey) error {
			l.Retract(key)
			return l.Hold(key, &handlers.Held{}, 10, 10, outputs)
		}
		s.fail(errFull)
		if err := hold(older); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Fatalf("on a full disk: %v", err)
		}
		l.Release(older)
		s.fail(nil)
		time.Sleep(2 * retryLast)
		if err := hold(younger); err != nil {
			t.Fatal(err)
		}
		if claim, err := l.Reserve(t.Context(), older, middleware.Digest{2}, middleware.Origin{}); err != nil || claim.State != middleware.ClaimReserved || claim.Begun != 0 {
			t.Fatalf("claim %+v, %v", claim, err)
		}
		if err := hold(older); err != nil {
			t.Fatal(err)
		}
		all, err := l.Owned(t.Context(), "p")
		if err != nil || len(all) != 2 || all[0].ID != "older" {
			t.Errorf("owned %+v, %v", all, err)
		}
	})
}

func TestChangesGoTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{rows: map[int64]Row{}}
		l := Open(s, slog.New(slog.DiscardHandler))
		time.Sleep(time.Second)
		var work sync.WaitGroup
		for i := range 1000 {
			work.Go(func() {
				key := begun(t, l, strconv.Itoa(i), 1)
				if err := l.Commit(key, outputs); err != nil {
					t.Error(err)
				}
				if err := l.Confirm(key, keep(time.Hour, 10000)); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if s.batches > 10 {
			t.Errorf("%d transactions for 1000 messages at once", s.batches)
		}
		if s.synced != 0 {
			t.Errorf("%d transactions waited for the disk though nobody asked", s.synced)
		}
		for n, r := range s.rows {
			if r.State != Confirmed {
				t.Errorf("row %d is %s at the end", n, r.State)
			}
		}
	})
}

func TestAfterCloseNothingIsPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{rows: map[int64]Row{}}
		l := Open(s, slog.New(slog.DiscardHandler))
		time.Sleep(time.Second)
		key := begun(t, l, "1", 1)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := l.Commit(key, outputs); handlers.KindOf(err) != handlers.KindUnavailable || !errors.Is(err, errClosed) {
			t.Errorf("commit after close: %v", err)
		}
	})
}
