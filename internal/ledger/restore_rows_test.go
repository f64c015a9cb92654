package ledger

import (
	"bufio"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/router/middleware"
)

// A store gets the rows that it lacks, and first those that prevent another run.
func TestWhatAStoreLacks(t *testing.T) {
	l := New()
	filled(t, l) // the numbers are 1 writing, 2 done, 3 confirmed, 4 held
	again := begun(t, l, "again", 1)
	l.Retract(again)
	must(t, l.Hold(again, &handlers.Held{Payload: []byte("body")}, 10, 10, outputs))
	if _, err := l.Resume(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Begin(again, true); err != nil {
		t.Fatal(err)
	}
	all, err := l.missingChanges(nil)
	must(t, err)
	with := func(number int64, change func(*Row)) []Row {
		rows := make([]Row, 0, len(all.Put))
		for _, r := range all.Put {
			if r.Number == number {
				change(&r)
			}
			rows = append(rows, r)
		}
		return rows
	}
	for name, c := range map[string]struct {
		rows []Row
		put  []int64
	}{
		"all":                              {nil, []int64{1, 4, 5, 2, 3}},
		"nothing":                          {all.Put, nil},
		"an older state":                   {with(3, func(r *Row) { r.State = Done }), []int64{3}},
		"an attempt":                       {with(1, func(r *Row) { r.Attempts = 0 }), []int64{1}},
		"the message of the first attempt": {with(5, func(r *Row) { r.Message, r.Outputs = nil, nil }), []int64{5}},
		// Its commit was written although it returned an error: the run commits again.
		"nothing of a commit": {with(1, func(r *Row) { r.State, r.Outputs = Done, outputs }), nil},
	} {
		b, err := l.missingChanges(c.rows)
		must(t, err)
		var put []int64
		for _, r := range b.Put {
			put = append(put, r.Number)
		}
		if diff := cmp.Diff(c.put, put); diff != "" || len(b.Remove) > 0 {
			t.Errorf("%s: removes %v and puts (-want +got):\n%s", name, b.Remove, diff)
		}
	}
	// The next start reads the same rows.
	next := New()
	next.opened = make(chan struct{})
	next.loadRows(all.Put)
	if b, err := next.missingChanges(all.Put); err != nil || len(b.Put)+len(b.Remove) > 0 {
		t.Errorf("after a restart %+v, %v", b, err)
	}
}

// A hold may be written although it returned an error. Its row and message stay in the store, and
// the next start has the command once.
func TestAHoldThatWasWrittenInVain(t *testing.T) {
	l := New()
	key := begun(t, l, "x", 1)
	must(t, l.Hold(key, &handlers.Held{Payload: []byte("body")}, 10, 10, outputs))
	all, err := l.missingChanges(nil)
	must(t, err)
	l.records[key].owned, l.records[key].holdFailed = nil, true
	if b, err := l.missingChanges(all.Put); err != nil || len(b.Put)+len(b.Remove) > 0 {
		t.Errorf("%+v, %v", b, err)
	}
}

// A host that stops right after its file was lost writes all its records to a new one.
func TestAStopRightAfterTheLoss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	l := open(t, NewSQLite(path, "test"))
	filled(t, l)
	must(t, os.Remove(path), l.Close(t.Context()))
	remembers(t, NewSQLite(path, "test"))
}

// Another database may have rows of a host with the same name. Their numbers may be numbers that
// this host used and forgot. They aren't its own rows.
func TestRowsOfAnotherDatabase(t *testing.T) {
	server := testenv.NewPostgres(t)
	admin, err := pgx.Connect(t.Context(), server.URL)
	must(t, err)
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), `CREATE DATABASE other`); err != nil {
		t.Fatal(err)
	}
	elsewhere := strings.Replace(server.URL, "/postgres?", "/other?", 1)
	other := open(t, NewPostgres(elsewhere, "h"))
	filled(t, other)
	must(t, other.Close(t.Context()))

	s := NewPostgres(server.URL, "h")
	if _, err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.url = elsewhere
	if _, err := s.Open(t.Context()); !errors.Is(err, errOther) {
		t.Errorf("opening it: %v", err)
	}
	must(t, s.Close())
	remembers(t, NewPostgres(elsewhere, "h"))
}

// The file that takes the place of a removed one may get its inode number.
func TestAnotherFileWithTheSameNumber(t *testing.T) {
	folder := t.TempDir()
	path, elsewhere := filepath.Join(folder, "ledger.db"), filepath.Join(folder, "other.db")
	other := open(t, NewSQLite(elsewhere, "test"))
	filled(t, other)
	must(t, other.Close(t.Context()))
	s := NewSQLite(path, "test")
	if _, err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	must(t, s.disconnect())
	s.tables.made = s.tables.made.Add(-time.Hour) // SQLite has seconds
	must(t, os.Rename(elsewhere, path))
	var err error
	s.watch, err = database.File{Path: path}.Watch()
	must(t, err)
	if _, err := s.Open(t.Context()); !errors.Is(err, errOther) {
		t.Errorf("opening it: %v", err)
	}
}

// A synchronous change has reached the disk, also in a database that is configured not to wait for
// it.
func TestADatabaseThatDoesNotWaitForItsDisk(t *testing.T) {
	server := testenv.NewPostgres(t)
	admin, err := pgx.Connect(t.Context(), server.URL)
	must(t, err)
	defer admin.Close(t.Context())
	if _, err := admin.Exec(t.Context(), `ALTER DATABASE postgres SET synchronous_commit = off`); err != nil {
		t.Fatal(err)
	}
	l := open(t, NewPostgres(server.URL, "h"))
	if _, err := admin.Exec(t.Context(), `CREATE TABLE seen (setting text);
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO seen VALUES (NEW.id || ' ' || current_setting('synchronous_commit')); RETURN NEW; END $$;
		CREATE TRIGGER see BEFORE INSERT ON pentrough_ledger FOR EACH ROW EXECUTE FUNCTION see()`); err != nil {
		t.Fatal(err)
	}
	for id, sync := range map[string]bool{"synced": true, "later": false} {
		key := middleware.LedgerKey{Pipeline: "p", ID: id}
		if _, err := l.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Begin(key, sync); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	must(t, admin.QueryRow(t.Context(), `SELECT array_agg(setting ORDER BY setting) FROM seen`).Scan(&seen))
	if diff := cmp.Diff([]string{"later off", "synced on"}, seen); diff != "" {
		t.Error(diff)
	}
}

// Two names of a file are one ledger, and a Watch of either name watches its log.
func TestALinkToTheFile(t *testing.T) {
	folder := t.TempDir()
	path, link := filepath.Join(folder, "ledger.db"), filepath.Join(folder, "link")
	must(t, open(t, NewSQLite(path, "test")).Close(t.Context()), os.Symlink(path, link))
	log := &lines{}
	l := Open(NewSQLite(link, "test"), slog.New(slog.NewTextHandler(log, nil)))
	defer l.Close(t.Context())
	healthy(t, l)
	if err := NewSQLite(path, "test").busy(t); !errors.Is(err, ErrInUse) {
		t.Errorf("a second host: %v", err)
	}
	if r, err := NewSQLite(path, "test").Repair(t.Context()); !errors.Is(err, ErrInUse) {
		t.Errorf("a repair: %+v, %v", r, err)
	}
	must(t, os.Remove(path+"-wal"))
	await.That(t, "the loss was noticed", func() (any, bool) { return log.String(), strings.Contains(log.String(), "ledger.db-wal") })
	healthy(t, l)
}

// If the folder is on another disk, the host makes no file there. It continues when the disk is
// mounted again.
func TestAFolderOnAnotherDisk(t *testing.T) {
	elsewhere := testenv.OtherDisk(t)
	folder, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(folder, link))
	l := open(t, NewSQLite(filepath.Join(link, "ledger.db"), "test"))
	filled(t, l)
	must(t, os.Remove(link), os.Symlink(elsewhere, link))
	unhealthy(t, l, "another disk")
	if files, err := os.ReadDir(elsewhere); err != nil || len(files) > 0 {
		t.Errorf("the folder has %v, %v", files, err)
	}
	must(t, os.Remove(link), os.Symlink(folder, link))
	healthy(t, l)
	must(t, l.Close(t.Context()))
	remembers(t, NewSQLite(filepath.Join(folder, "ledger.db"), "test"))
}

// A full disk is one outage until there is room. Opening the store needs room, too.
func TestAFullDiskIsOneOutage(t *testing.T) {
	folder, err := testenv.SmallDisk(t, "16m")
	if err != nil {
		t.Skip(err)
	}
	log := &lines{}
	l := Open(NewSQLite(filepath.Join(folder, "ledger.db"), "test"), slog.New(slog.NewTextHandler(log, nil)))
	defer l.Close(t.Context())
	healthy(t, l)
	filled(t, l)
	filler := filepath.Join(folder, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	key := middleware.LedgerKey{Pipeline: "p", ID: "new", Device: strings.Repeat("d", 50_000)}
	if _, err := l.Reserve(t.Context(), key, middleware.Digest{1}, middleware.Origin{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Begin(key, true); handlers.KindOf(err) != handlers.KindUnavailable {
		t.Errorf("begin: %v", err)
	}
	l.Release(key)
	await.That(t, "the ledger waits for room", func() (any, bool) {
		return log.String(), strings.Contains(log.String(), "need a reserve of 4 MiB")
	})
	if text := log.String(); strings.Contains(text, "works again") {
		t.Errorf("the log:\n%s", text)
	}
	must(t, os.Remove(filler))
	healthy(t, l)
	must(t, l.Close(t.Context()))
	remembers(t, NewSQLite(filepath.Join(folder, "ledger.db"), "test"))
}

// readsFile names the file that a second process of this program has open until its input ends.
const readsFile = "PENTROUGH_TEST_READS"

// Another process may still have the removed file open, with its log and the log's index.
func TestAFileThatIsRemovedWhileAnotherProcessReadsIt(t *testing.T) {
	if path := os.Getenv(readsFile); path != "" {
		readUntilTheInputEnds(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	log := &lines{}
	l := Open(NewSQLite(path, "test"), slog.New(slog.NewTextHandler(log, nil)))
	defer l.Close(t.Context())
	healthy(t, l)
	filled(t, l)
	reader := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	reader.Env = append(os.Environ(), readsFile+"="+path)
	in, err := reader.StdinPipe()
	must(t, err)
	out, err := reader.StdoutPipe()
	must(t, err)
	must(t, reader.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "reading\n" {
		t.Fatalf("the reader says %q, %v", line, err)
	}
	must(t, os.Remove(path))
	await.That(t, "the ledger was lost and works again", func() (any, bool) {
		return log.String(), strings.Contains(log.String(), "the ledger works again")
	})
	must(t, in.Close())
	if err := reader.Wait(); err != nil {
		t.Fatalf("the reader: %v", err)
	}
	must(t, l.Close(t.Context()))
	remembers(t, NewSQLite(path, "test"))
}

func readUntilTheInputEnds(t *testing.T, path string) {
	db, _, err := database.File{Path: path}.OpenToRead()
	must(t, err)
	defer db.Close()
	found, err := db.QueryContext(t.Context(), `SELECT number FROM ledger`)
	must(t, err)
	defer found.Close()
	found.Next()
	_, _ = os.Stdout.WriteString("reading\n")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}
