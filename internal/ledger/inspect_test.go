package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/router/middleware"
)

// inspectable is a store that can be inspected.
type inspectable interface {
	Store
	Inspect(ctx context.Context) (*Inspector, error)
	Repair(ctx context.Context) (*Repair, error)
}

func inspect(t *testing.T, s Store) *Inspector {
	t.Helper()
	in, err := s.(inspectable).Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// fill writes rows to a store and returns it open.
func fill(t *testing.T, s Store, rows ...Row) {
	t.Helper()
	if _, err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Apply(t.Context(), Batch{Put: rows}, false); err != nil {
		t.Fatal(err)
	}
}

// row makes a row. Odd numbers have another device and pipeline.
func row(n int64, s State, out []middleware.Output) Row {
	key := middleware.LedgerKey{Pipeline: "p", ID: fmt.Sprint("id-", n), Device: "d"}
	if n%2 == 1 {
		key.Pipeline, key.Device = "q", ""
	}
	return Row{Number: n, Key: key, Digest: middleware.Digest{byte(n)}, State: s, Attempts: int(n), Outputs: out}
}

// ids returns the ids of the rows that a filter chooses.
func ids(t *testing.T, in *Inspector, f Filter) []string {
	t.Helper()
	var all []string
	for e, err := range in.Entries(t.Context(), f) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Key.ID)
	}
	n, err := in.Count(t.Context(), f)
	if err != nil || int(n) != len(all) {
		t.Errorf("counted %d of %d, %v", n, len(all), err)
	}
	return all
}

func ptr(s string) *string { return &s }

func TestInspectionBesideAHost(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			again := start(t)(t)
			rows := []Row{row(1, Writing, nil), row(2, Done, outputs), row(3, Confirmed, outputs), row(4, Confirmed, []middleware.Output{})}
			fill(t, again(), rows...)
			in := inspect(t, again())

			var got []Row
			for e, err := range in.Entries(t.Context(), Filter{}) {
				if err != nil || e.Flaw != nil || time.Since(e.Changed).Abs() > time.Hour {
					t.Errorf("%+v, %v", e, err)
				}
				got = append(got, e.Row)
			}
			slices.Reverse(got)
			if diff := cmp.Diff(rows, got); diff != "" {
				t.Error(diff)
			}
			for _, c := range []struct {
				filter Filter
				want   []string
			}{
				{Filter{States: []State{Writing, Done}}, []string{"id-2", "id-1"}},
				{Filter{States: []State{Confirmed}, Pipeline: ptr("q")}, []string{"id-3"}},
				{Filter{Device: ptr("")}, []string{"id-3", "id-1"}},
				{Filter{ID: ptr("id-2"), Device: ptr("d"), Pipeline: ptr("p")}, []string{"id-2"}},
				{Filter{ID: ptr("id-2' OR 1 = 1 --")}, nil},
				{Filter{Number: 3}, []string{"id-3"}},
				{Filter{Below: 2}, []string{"id-1"}},
			} {
				if diff := cmp.Diff(c.want, ids(t, in, c.filter)); diff != "" {
					t.Errorf("%+v: %s", c.filter, diff)
				}
			}
			tally, err := in.Tally(t.Context())
			if diff := cmp.Diff([]Tally{{"p", Done, 1}, {"p", Confirmed, 1}, {"q", Writing, 1}, {"q", Confirmed, 1}}, tally); diff != "" || err != nil {
				t.Error(diff, err)
			}
			if found, err := in.Integrity(t.Context()); len(found) > 0 || err != nil {
				t.Errorf("integrity: %q, %v", found, err)
			}
			if in.Version != sqliteDialect.Newest() {
				t.Errorf("version %d", in.Version)
			}
			for range in.Entries(t.Context(), Filter{}) {
				break // one that is left early is no reason for trouble
			}
		})
	}
}

// namesHolder checks that an error says which host uses a store, in which process, and since when.
func namesHolder(t *testing.T, err error) {
	t.Helper()
	said := regexp.MustCompile(`another process uses it: host "[^"]+", .*process (\d+)( of the database)?, since (\S+?)(;|$)`).FindStringSubmatch(err.Error())
	if said == nil {
		t.Fatalf("the holder isn't named: %v", err)
	}
	if said[2] == "" && said[1] != strconv.Itoa(os.Getpid()) {
		t.Errorf("not this process: %v", err)
	}
	if _, err := time.Parse(time.RFC3339, said[3]); err != nil {
		t.Error(err)
	}
}

func TestForgettingIsForAStoreThatNobodyUses(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			again := start(t)(t)
			host := again()
			fill(t, host, row(1, Writing, nil), row(2, Done, outputs), row(3, Confirmed, outputs))
			r, err := again().(inspectable).Repair(t.Context())
			if !errors.Is(err, ErrInUse) {
				t.Fatalf("beside the host: %v, %v", r, err)
			}
			namesHolder(t, err)
			_, err = again().Open(t.Context())
			if !errors.Is(err, ErrInUse) {
				t.Errorf("a second host: %v", err)
			}
			namesHolder(t, err)
			if err := host.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err = again().(inspectable).Repair(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := again().Open(t.Context()); !errors.Is(err, ErrInUse) {
				t.Errorf("a host beside the repair: %v", err)
			}
			if err := r.Forget(t.Context(), []int64{1, 3}); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			after := again()
			rows, err := after.Open(t.Context())
			if diff := cmp.Diff([]Row{row(2, Done, outputs)}, rows); diff != "" || err != nil {
				t.Error(diff, err)
			}
			if err := after.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPagesMissNothing(t *testing.T) {
	for name, start := range stores {
		t.Run(name, func(t *testing.T) {
			again := start(t)(t)
			small := pages{20, 64 << 10}
			var rows []Row
			for n := range int64(3*small.rows + 1) {
				rows = append(rows, row(n+1, Confirmed, nil))
			}
			// Two pages that are full by bytes, not by rows.
			for n := range int64(4) {
				rows = append(rows, row(10_000+n, Done, []middleware.Output{{Payload: make([]byte, small.bytes/2)}}))
			}
			fill(t, again(), rows...)
			in := inspect(t, again())
			if in.pages != (pages{pageRows, pageBytes}) {
				t.Errorf("pages of %+v", in.pages)
			}
			in.pages = small
			got := ids(t, in, Filter{})
			slices.Reverse(got)
			var want []string
			for _, r := range rows {
				want = append(want, r.Key.ID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostsShareADatabase(t *testing.T) {
	server := testenv.NewPostgres(t)
	fill(t, NewPostgres(server.URL, "a"), row(1, Done, nil))
	b := NewPostgres(server.URL, "b")
	fill(t, b, row(1, Writing, nil), row(2, Writing, nil))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := b.Repair(t.Context()) // though a runs
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Forget(t.Context(), []int64{1}); err != nil {
		t.Error(err)
	}
	in := inspect(t, NewPostgres(server.URL, "a"))
	if diff := cmp.Diff([]string{"id-1"}, ids(t, in, Filter{})); diff != "" {
		t.Error(diff)
	}
	if _, err := in.conn.ExecContext(t.Context(), `DELETE FROM pentrough_ledger`); err == nil {
		t.Error("an inspection could write")
	}
}

// all opens a store in every way.
func opened(t *testing.T, s Store) map[string]error {
	t.Helper()
	in, inspecting := s.(inspectable).Inspect(t.Context())
	if inspecting == nil {
		inspecting = in.Close()
	}
	r, repairing := s.(inspectable).Repair(t.Context())
	if repairing == nil {
		repairing = r.Close()
	}
	_, hosting := s.Open(t.Context())
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return map[string]error{"inspect": inspecting, "repair": repairing, "host": hosting}
}

func TestASchemaOfAnotherVersion(t *testing.T) {
	server := testenv.NewPostgres(t)
	sqlite := filepath.Join(t.TempDir(), "ledger.db")
	for name, c := range map[string]struct {
		store Store
		exec  func(string) error
	}{
		"sqlite": {NewSQLite(sqlite, "gateway-1"), func(query string) error { return change(sqlite, query) }},
		"postgres": {NewPostgres(server.URL, "h"), func(query string) error {
			conn, err := pgx.Connect(t.Context(), server.URL)
			if err != nil {
				return err
			}
			_, err = conn.Exec(t.Context(), query)
			return errors.Join(err, conn.Close(t.Context()))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if in, err := c.store.(inspectable).Inspect(t.Context()); err == nil || name == "postgres" && !errors.Is(err, database.ErrNone) {
				t.Errorf("before there is a ledger: %v, %v", in, err)
			}
			fill(t, c.store)
			c.store.Close()
			versions := sqliteDialect.Versions
			if name == "postgres" {
				versions = postgresDialect.Versions
			}
			if err := c.exec(`INSERT INTO ` + versions + ` (version_id, is_applied) VALUES (99, true)`); err != nil {
				t.Fatal(err)
			}
			for how, err := range opened(t, c.store) {
				if !errors.Is(err, database.ErrSchema) || !strings.Contains(err.Error(), "has version 99, and this program's has version 3") {
					t.Errorf("%s: %v", how, err)
				}
			}
		})
	}
}

// change changes a database file directly.
func change(path, query string) error {
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		return err
	}
	_, err = db.Exec(query)
	return errors.Join(err, db.Close())
}

func TestFilesThatAreNoLedger(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := write("text", []byte(strings.Repeat("no database\n", 1000)))

	whole := filepath.Join(folder, "whole")
	s := NewSQLite(whole, "gateway-1")
	var rows []Row
	for n := range int64(2000) {
		rows = append(rows, row(n+1, Done, outputs))
	}
	fill(t, s, rows...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	half := write("half", content[:len(content)/2])
	other := filepath.Join(folder, "other")
	if err := change(other, `CREATE TABLE ledger (account)`); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		path string
		is   error
		// host says that a host can't use it either. Otherwise the host migrates it.
		host bool
	}{
		{text, database.ErrNotSQLite, true},
		{half, database.ErrDamaged, true},
		{write("empty", nil), database.ErrNone, false},
		{other, database.ErrNone, true},
	} {
		in, err := NewSQLite(c.path, "gateway-1").Inspect(t.Context())
		if err == nil { // what is damaged may show only when it is read
			for _, readErr := range in.Entries(t.Context(), Filter{}) {
				err = errors.Join(err, readErr)
			}
			err = errors.Join(err, in.Close())
		}
		if !errors.Is(err, c.is) || !strings.HasPrefix(err.Error(), c.path+": ") {
			t.Errorf("%s: %v", c.path, err)
		}
		if r, err := NewSQLite(c.path, "gateway-1").Repair(t.Context()); err == nil {
			_, err = r.Integrity(t.Context())
			if closing := r.Close(); !errors.Is(c.is, database.ErrDamaged) || closing != nil {
				t.Errorf("%s: repairing: %v, %v", c.path, err, closing)
			}
		} else if !errors.Is(err, c.is) {
			t.Errorf("%s: repairing: %v", c.path, err)
		}
		host := NewSQLite(c.path, "gateway-1")
		_, err = host.Open(t.Context())
		if host.Close(); (err != nil) != c.host {
			t.Errorf("%s: a host: %v", c.path, err)
		}
		if c.host && !errors.Is(c.is, database.ErrNone) && !errors.Is(err, c.is) {
			t.Errorf("%s: a host is told %v", c.path, err)
		}
	}
}

func TestDamageIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := NewSQLite(path, "gateway-1")
	fill(t, s, row(1, Done, outputs), row(2, Done, outputs), row(3, Done, outputs), row(4, Done, outputs))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := change(path, `UPDATE ledger SET outputs = CAST('[{' AS BLOB) WHERE number = 1; UPDATE ledger SET state = 7 WHERE number = 2;
		UPDATE ledger SET digest = x'01' WHERE number = 3`); err != nil {
		t.Fatal(err)
	}
	in := inspect(t, s)
	var found []string
	for e, err := range in.Entries(t.Context(), Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, fmt.Sprint(e.Flaw))
	}
	want := []string{
		"<nil>", `row 3, id "id-3" of pipeline q: its digest has 1 bytes instead of 32`, `row 2, id "id-2" of pipeline p: there is no state 7`,
		`row 1, id "id-1" of pipeline q: reading its outputs: unexpected end of JSON input`,
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}

	// A damaged page of the index.
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var index int64
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	err = db.QueryRow(`SELECT rootpage FROM sqlite_master WHERE type = 'index' AND tbl_name = 'ledger'`).Scan(&index)
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("x", 100)), (index-1)*4096); err != nil {
		t.Fatal(err)
	}
	if found, err := inspect(t, s).Integrity(t.Context()); len(found) == 0 && !errors.Is(err, database.ErrDamaged) {
		t.Errorf("integrity: %q, %v", found, err)
	}
}

func TestNothingIsMadeByLooking(t *testing.T) {
	folder := t.TempDir()
	absent := NewSQLite(filepath.Join(folder, "absent.db"), "gateway-1")
	for how, open := range map[string]func() error{
		"inspect": func() error { _, err := absent.Inspect(t.Context()); return err },
		"repair":  func() error { _, err := absent.Repair(t.Context()); return err },
	} {
		if err := open(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", how, err)
		}
	}
	if files, err := os.ReadDir(folder); len(files) > 0 || err != nil {
		t.Errorf("in the folder are %v, %v", files, err)
	}
	s := NewSQLite(filepath.Join(folder, "ledger.db"), "gateway-1")
	fill(t, s, row(1, Done, outputs))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	in := inspect(t, s)
	ids(t, in, Filter{})
	after, err := os.ReadDir(folder)
	if err != nil || len(before) != len(after) {
		t.Errorf("in the folder were %v and are %v, %v", before, after, err)
	}

	// If a host starts during a read, the result is in doubt.
	fill(t, NewSQLite(s.path, "gateway-1"), row(2, Done, outputs))
	if _, err := in.Count(t.Context(), Filter{}); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("beside a host that just started: %v", err)
	}
}

// unprivileged runs a test as a user for whom file permissions count. Root runs it again without
// privileges.
func unprivileged(t *testing.T) bool {
	if os.Geteuid() != 0 || os.Getenv("PENTROUGH_TEST_UNPRIVILEGED") != "" {
		return true
	}
	cmd := exec.Command("setpriv", "--bounding-set=-dac_override,-dac_read_search", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "PENTROUGH_TEST_UNPRIVILEGED=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("without root's power: %v", err)
	}
	return false
}

func TestFoldersThatCantBeWrittenTo(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "ledger.db")
	s := NewSQLite(path, "gateway-1")
	fill(t, s, row(1, Writing, nil))
	forbid := func(mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { forbid(0o700) })

	forbid(0o500)
	ids(t, inspect(t, s), Filter{}) // while the host uses it
	forbid(0o700)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	forbid(0o500)
	if diff := cmp.Diff([]string{"id-1"}, ids(t, inspect(t, s), Filter{})); diff != "" {
		t.Error(diff)
	}
	if _, err := NewSQLite(filepath.Join(folder, "new.db"), "gateway-1").Open(t.Context()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a new store: %v", err)
	}
	forbid(0o700)
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	// The file of a killed host can be read.
	other := filepath.Join(t.TempDir(), "ledger.db")
	fill(t, NewSQLite(other, "gateway-1"), row(1, Writing, nil), row(2, Writing, nil))
	for _, part := range []string{"", "-wal"} {
		content, err := os.ReadFile(other + part)
		if err != nil || len(content) == 0 {
			t.Fatal(len(content), err)
		}
		if err := os.WriteFile(path+part, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	forbid(0o500)
	if diff := cmp.Diff([]string{"id-2", "id-1"}, ids(t, inspect(t, s), Filter{})); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Repair(t.Context()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("repair: %v", err)
	}
	forbid(0o000)
	if _, err := s.Inspect(t.Context()); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("in a closed folder: %v", err)
	}
}

func TestAFileForAFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for how, err := range opened(t, NewSQLite(filepath.Join(file, "ledger.db"), "gateway-1")) {
		if err == nil || !strings.HasSuffix(err.Error(), "not a directory") {
			t.Errorf("%s: %v", how, err)
		}
	}
	for how, err := range opened(t, NewSQLite(filepath.Dir(file), "gateway-1")) {
		if err == nil {
			t.Errorf("%s: a folder was opened as a file", how)
		}
	}
}

func TestADeadDatabase(t *testing.T) {
	s := NewPostgres("postgres://u:hunter2@127.0.0.1:1/db", "h") // a port without a server
	for how, err := range opened(t, s) {
		if err == nil || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", how, err)
		}
	}
	for how, err := range opened(t, NewPostgres("postgres://u:hunter2@127.0.0.1:x%zz/db", "h")) {
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", how, err)
		}
	}
}
