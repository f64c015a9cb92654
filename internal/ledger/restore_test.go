package ledger

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router/middleware"
)

// filled adds a record in each state to a ledger.
func filled(t *testing.T, l *Ledger) {
	t.Helper()
	begun(t, l, "writing", 1)
	done, confirmed, held := begun(t, l, "done", 1), begun(t, l, "confirmed", 1), begun(t, l, "held", 1)
	for _, key := range []middleware.LedgerKey{done, confirmed} {
		if err := l.Commit(key, outputs); err != nil {
			t.Fatal(err)
		}
	}
	confirm(t, l, confirmed, 1<<40, 10)
	l.Retract(held)
	if err := l.Hold(held, &handlers.Held{Payload: []byte("body")}, 10, 10, outputs); err != nil {
		t.Fatal(err)
	}
}

// remembers fails the test if a store doesn't have the rows that filled wrote.
func remembers(t *testing.T, s Store) {
	t.Helper()
	var got []string
	rows, err := s.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		text := r.Key.ID + " " + r.State.String()
		if r.Message != nil {
			text += " " + string(r.Message.Payload)
		}
		got = append(got, text)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want := []string{"confirmed confirmed", "done done", "held held body", "writing writing"}; !slices.Equal(got, want) {
		t.Errorf("the store has %q, want %q", got, want)
	}
}

var discard = slog.New(slog.DiscardHandler)

func healthy(t *testing.T, l *Ledger) {
	t.Helper()
	await.That(t, "the ledger works", func() (any, bool) { err := l.Health(); return err, err == nil })
}

// unhealthy waits until the ledger reports why its store can't be used.
func unhealthy(t *testing.T, l *Ledger, why string) {
	t.Helper()
	await.That(t, "the ledger says "+why, func() (any, bool) {
		err := l.Health()
		return err, err != nil && strings.Contains(err.Error(), why)
	})
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// After a file was lost, the host writes all its records to a new one, so that a restart forgets
// nothing.
func TestALostFileIsWrittenAnewFromMemory(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"removed with log": func(t *testing.T, path string) {
			must(t, os.Remove(path), os.Remove(path+"-wal"), os.Remove(path+"-shm"))
		},
		"moved away":    func(t *testing.T, path string) { must(t, os.Rename(path, path+".old")) },
		"log removed":   func(t *testing.T, path string) { must(t, os.Remove(path+"-wal")) },
		"index removed": func(t *testing.T, path string) { must(t, os.Remove(path+"-shm")) },
		"lock removed":  func(t *testing.T, path string) { must(t, os.Remove(path+".lock")) },
		"all in the folder": func(t *testing.T, path string) {
			must(t, os.RemoveAll(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700))
		},
		"log replaced": func(t *testing.T, path string) {
			must(t, os.Rename(path+"-wal", path+".x"), os.WriteFile(path+"-wal", nil, 0o600))
		},
		"moved away and back": func(t *testing.T, path string) { must(t, os.Rename(path, path+".x"), os.Rename(path+".x", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "folder", "ledger.db")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			log := &lines{}
			l := Open(NewSQLite(path, "test"), slog.New(slog.NewTextHandler(log, nil)))
			defer l.Close(t.Context())
			healthy(t, l)
			filled(t, l)
			lose(t, path)
			if name != "moved away and back" {
				await.That(t, "the ledger was lost and works again", func() (any, bool) {
					text := log.String()
					return text, strings.Contains(text, "the ledger works again")
				})
			}
			if err := NewSQLite(path, "test").busy(t); !errors.Is(err, ErrInUse) {
				t.Errorf("a second host: %v", err)
			}
			must(t, l.Close(t.Context()))
			remembers(t, NewSQLite(path, "test"))
		})
	}
}

// lines collects log lines.
type lines struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(line)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// busy returns why a second host can't use the file.
func (s *SQLite) busy(t *testing.T) error {
	_, err := s.Open(t.Context())
	return errors.Join(err, s.Close())
}

// The host doesn't change a file that took the place of the ledger's. When it is removed, the host
// continues.
func TestAnotherFileIsNotWrittenTo(t *testing.T) {
	for name, from := range map[string]string{"another ledger": "other.db", "a backup": "backup.db", "no database": "text"} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(folder, "ledger.db")
			must(t, os.WriteFile(filepath.Join(folder, "text"), []byte("text"), 0o600))
			backup, other := open(t, NewSQLite(filepath.Join(folder, "backup.db"), "test")), open(t, NewSQLite(filepath.Join(folder, "other.db"), "test"))
			begun(t, backup, "writing", 1)
			begun(t, other, "x", 1)
			must(t, backup.Close(t.Context()), other.Close(t.Context()))

			l := open(t, NewSQLite(path, "test"))
			filled(t, l)
			must(t, os.Rename(filepath.Join(folder, from), path))
			before, err := os.ReadFile(path)
			must(t, err)
			unhealthy(t, l, "move it away")
			key := middleware.LedgerKey{Pipeline: "p", ID: "new", Device: "d"}
			if _, err := l.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{}); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Begin(key, true); handlers.KindOf(err) != handlers.KindUnavailable || !errors.Is(err, database.ErrReplaced) {
				t.Errorf("begin: %v", err)
			}
			l.Release(key)
			if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
				t.Errorf("the file was changed: %v", err)
			}
			must(t, os.Rename(path, filepath.Join(folder, "away")))
			healthy(t, l)
			must(t, l.Close(t.Context()))
			remembers(t, NewSQLite(path, "test"))
		})
	}
}

// If the folder's disk is unmounted, the host makes no file in the folder below.
func TestAFolderThatIsGone(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "folder")
	must(t, os.Mkdir(folder, 0o700))
	l := open(t, NewSQLite(filepath.Join(folder, "ledger.db"), "test"))
	filled(t, l)
	must(t, os.Rename(folder, folder+".away"))
	unhealthy(t, l, "no such file")
	must(t, os.Rename(folder+".away", folder))
	healthy(t, l)
	must(t, l.Close(t.Context()))
	remembers(t, NewSQLite(filepath.Join(folder, "ledger.db"), "test"))
}

// When the permissions are corrected, the ledger works again without a restart.
func TestRightsThatArePutRight(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	for _, part := range []string{"", "-wal"} {
		path := filepath.Join(t.TempDir(), "ledger.db")
		// Because of a second connection, the log isn't removed at the end.
		keeper, _ := database.File{Path: path, Create: true}.Open()
		first := open(t, NewSQLite(path, "test"))
		if _, err := keeper.ExecContext(t.Context(), "SELECT count(*) FROM ledger"); err != nil {
			t.Fatal(err)
		}
		must(t, first.Close(t.Context()), os.Chmod(path+part, 0o400))
		l := Open(NewSQLite(path, "test"), discard)
		unhealthy(t, l, "permission denied")
		must(t, os.Chmod(path+part, 0o600))
		healthy(t, l)
		begun(t, l, "x", 1)
		must(t, l.Close(t.Context()), keeper.Close())
	}
}

// A server that becomes read-only is an outage, also for an idle ledger. When it is a primary
// again, the host continues and writes the rows that the server lost.
func TestAServerThatCanOnlyBeRead(t *testing.T) {
	server := testenv.NewPostgres(t)
	l := open(t, NewPostgres(server.URL, "h"))
	filled(t, l)
	admin, err := pgx.Connect(t.Context(), server.URL)
	must(t, err)
	defer admin.Close(t.Context())
	execute := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if _, err := admin.Exec(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	execute(`DELETE FROM pentrough_ledger WHERE id IN ('done', 'held')`, `UPDATE pentrough_ledger SET state = 1 WHERE id = 'confirmed'`,
		`ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
	unhealthy(t, l, "read")
	execute(`SET default_transaction_read_only = off`, `ALTER SYSTEM RESET default_transaction_read_only`, `SELECT pg_reload_conf()`)
	healthy(t, l)
	must(t, l.Close(t.Context()))
	remembers(t, NewPostgres(server.URL, "h"))
}

// Only the owner can read the files, whatever the umask. A file that others can read is reported.
func TestFilesAreTheirOwners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, NewSQLite(path, "test"))
	filled(t, l)
	for _, part := range []string{"", "-wal", "-shm", ".lock"} {
		if info, err := os.Stat(path + part); err != nil || info.Mode().Perm() != 0o600 || database.OpenToOthers(path+part) != 0 {
			t.Errorf("%q: %v, %v", part, info, err)
		}
	}
	must(t, os.Chmod(path, 0o644))
	if mode := database.OpenToOthers(path); mode != 0o644 {
		t.Errorf("mode %v", mode)
	}
}

// The host doesn't change rows that it can't have written.
func TestRowsOfAnotherHostOfTheName(t *testing.T) {
	for name, row := range map[string]Row{
		"a number to come":    row(100, Done, outputs),
		"a number of another": row(1, Done, outputs),
	} {
		l := New()
		filled(t, l)
		if b, err := l.missingChanges([]Row{row}); !errors.Is(err, errOther) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}
