package ledger

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router/middleware"
)

// unrecorded returns a ledger whose store is full. It couldn't record the outcomes of n runs.
func unrecorded(t *testing.T, n int) (*brokenStore, *Ledger) {
	t.Helper()
	s := &brokenStore{rows: map[int64]Row{}}
	l := Open(s, slog.New(slog.DiscardHandler))
	<-l.Opened()
	var keys []middleware.LedgerKey
	for i := range n {
		keys = append(keys, begun(t, l, "id-"+strconv.Itoa(i), 1))
	}
	s.fail(errFull)
	for _, key := range keys {
		if err := l.Commit(key, outputs); handlers.KindOf(err) != handlers.KindUnavailable {
			t.Fatalf("commit on a full disk: %v", err)
		}
	}
	return s, l
}

func TestCloseSaysWhatIsNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := unrecorded(t, 3)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begun := time.Now()
		err := l.Close(ctx)
		for _, part := range []string{"3 outcomes aren't recorded", `(ids "id-0", "id-1", "id-2")`, errFull.Error()} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%v doesn't say %s", err, part)
			}
		}
		if took := time.Since(begun); took < 25*time.Second || took > 35*time.Second {
			t.Errorf("tried for %v", took)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("a second time: %v", err)
		}
	})
}

func TestCloseNamesAFewOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := unrecorded(t, 500)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Close(ended); err == nil || !strings.Contains(err.Error(), "500 outcomes aren't") || len(err.Error()) > 500 {
			t.Error(err)
		}
	})
}

// An outcome that couldn't be recorded is written as soon as there is room, with or without a
// redelivery of its message.
func TestCloseTriesAgain(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, l := unrecorded(t, 3)
			time.AfterFunc(after, func() { s.fail(nil) })
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := l.Close(ctx); err != nil {
				t.Error(err)
			}
			for n, r := range s.rows {
				if r.State != Done || len(r.Outputs) != 1 {
					t.Errorf("row %d is %s with %v", n, r.State, r.Outputs)
				}
			}
			if len(s.rows) != 3 {
				t.Errorf("%d rows", len(s.rows))
			}
		})
	}
}

func TestCloseSaysThatOnlyConfirmationsAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{rows: map[int64]Row{}}
		l := Open(s, slog.New(slog.DiscardHandler))
		<-l.Opened()
		key := begun(t, l, "1", 1)
		l.Retract(key)
		s.fail(errFull)
		l.Release(key)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Close(ended); err == nil || !strings.Contains(err.Error(), "not all changes are recorded") {
			t.Error(err)
		}
	})
}

// fillDisk fills the disk of a folder until the returned function is called.
func fillDisk(t *testing.T, folder string) (free func()) {
	t.Helper()
	name := filepath.Join(folder, "filler")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(name)) }
}

// When others have filled the disk, the outcomes of begun runs are still recorded. No new run
// begins until there is room again.
func TestAFullDiskCostsNoOutcome(t *testing.T) {
	folder, err := testenv.SmallDisk(t, "16m")
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(folder, "ledger.db")
	l := Open(NewSQLite(path, "host"), slog.New(slog.NewTextHandler(t.Output(), nil)))
	<-l.Opened()
	keys := make([]middleware.LedgerKey, 1000)
	var work sync.WaitGroup
	for i := range keys {
		work.Go(func() { keys[i] = begun(t, l, "id-"+strconv.Itoa(i), 1) })
	}
	work.Wait()
	free := fillDisk(t, folder)
	long := []middleware.Output{{UUID: "u", Metadata: map[string]string{"k": "v"}, Payload: []byte(strings.Repeat("x", 400))}}
	for _, key := range keys {
		work.Go(func() { _ = l.Commit(key, long) }) // it may find room in what SQLite has already
	}
	work.Wait()
	await.That(t, "all outcomes are recorded", func() (any, bool) {
		n := 0
		for _, key := range keys {
			if claim, err := l.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{}); err == nil && claim.State == middleware.ClaimDone {
				n++
			}
		}
		return n, n == len(keys)
	})
	later := middleware.LedgerKey{Pipeline: "p", ID: "later"}
	if _, err := l.Reserve(t.Context(), later, middleware.Digest{}, middleware.Origin{}); err != nil {
		t.Fatal(err)
	}
	// SQLite frees space when it opens the file again, and others use that, too.
	await.That(t, "nothing begins, and the ledger says why", func() (any, bool) {
		fillDisk(t, folder)
		_, err := l.Begin(later, false)
		return err, handlers.KindOf(err) == handlers.KindUnavailable && strings.Contains(err.Error(), "full") && l.Health() != nil
	})
	free()
	await.That(t, "the ledger works again", func() (any, bool) {
		_, err := l.Begin(later, false)
		return err, err == nil
	})
	if info, err := os.Stat(path + ".reserve"); err != nil || info.Size() != reserveSize {
		t.Errorf("the reserve: %v, %v", info, err)
	}
	must(t, l.Close(t.Context()))
	again := Open(NewSQLite(path, "host"), slog.New(slog.DiscardHandler))
	<-again.Opened()
	for _, key := range keys {
		claim, err := again.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{})
		if err != nil || claim.State != middleware.ClaimDone || len(claim.Outputs) != 1 {
			t.Fatalf("%s: %+v, %v", key.ID, claim, err)
		}
	}
	must(t, again.Close(t.Context()))
}

// silentStore doesn't answer, as a server whose packets are lost.
type silentStore struct {
	*brokenStore
	silent bool
}

func (s *silentStore) Open(ctx context.Context) ([]Row, error) {
	if s.silent {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return s.brokenStore.Open(ctx)
}

// A stop doesn't wait for an attempt to open the store, which may last longer than the stop.
func TestCloseWhileTheStoreIsOpened(t *testing.T) {
	for name, opened := range map[string]bool{"for the first time": false, "again": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &silentStore{&brokenStore{rows: map[int64]Row{}}, !opened}
				l := Open(s, slog.New(slog.DiscardHandler))
				if opened {
					<-l.Opened()
					key := begun(t, l, "1", 1)
					s.silent = true
					s.fail(errFull)
					go func() { _ = l.Commit(key, outputs) }()
				}
				time.Sleep(time.Second)
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				start := time.Now()
				err := l.Close(ended)
				if took := time.Since(start); took > lastTimeout {
					t.Errorf("it took %v", took)
				}
				if opened != (err != nil && strings.Contains(err.Error(), "1 outcome isn't recorded")) {
					t.Error(err)
				}
			})
		})
	}
}
