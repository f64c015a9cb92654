package database

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// each runs a test on every database.
func each(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "a.db")) })
	t.Run("mysql", func(t *testing.T) { test(t, testenv.NewMySQL(t).URL) })
	t.Run("postgres", func(t *testing.T) { test(t, testenv.NewPostgres(t).URL) })
}

func open(t *testing.T, url string) DB {
	t.Helper()
	db, err := Open(url, "pentrough test", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func count(t *testing.T, db DB) (n int) {
	t.Helper()
	err := db.Query(t.Context(), Statement{Text: "SELECT count(*) FROM things"}, func(scan func(...any) error) error { return scan(&n) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func insert(db DB, id, n any) Statement {
	d := db.Dialect()
	return Statement{Text: "INSERT INTO things (id, n) VALUES (" + d.Parameter(1) + ", " + d.Parameter(2) + ")", Args: []any{id, n}}
}

func things(db DB) string {
	return db.Dialect().Create("things", []string{"id " + db.Dialect().Types.Text + " PRIMARY KEY", "n integer NOT NULL"})
}

func TestAllOrNothing(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		db := open(t, url)
		text := db.Dialect().Types.Text
		steps := []string{things(db), db.Dialect().Create("others", []string{"id " + text + " PRIMARY KEY", "n integer"}, Index{Name: "others_n", Columns: []string{"n", "id"}}, Index{"others_2", []string{"n"}, "n > 2"})}
		for range 2 {
			if err := db.Migrate(t.Context(), "things_schema", steps); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Migrate(t.Context(), "things_schema", steps[:1]); err == nil || !strings.Contains(err.Error(), "another version") {
			t.Errorf("an older program: %v", err)
		}
		if err := db.Apply(t.Context(), []Statement{insert(db, "a", 1), insert(db, "b", 2)}); err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string]Statement{
			"doubled": insert(db, "a", 1), "null": insert(db, "c", nil), "no table": {Text: "DELETE FROM nothing"}, "no statement": {Text: "SELEKT"},
		} {
			err := db.Apply(t.Context(), []Statement{insert(db, "d", 1), bad, insert(db, "e", 1)})
			if err == nil || KindOf(err) != Fault {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := count(t, db); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
		if err := db.Explain(t.Context(), insert(db, "z", 1)); err != nil {
			t.Error(err)
		}
		bad := []string{"INSERT INTO things (id, m) VALUES ('z', 1)"}
		if db.Dialect().OnDuplicateKey {
			if err := db.CheckKey(t.Context(), "things", "n"); KindOf(err) != Fault {
				t.Errorf("a column without an index: %v", err)
			}
		} else {
			bad = append(bad, "INSERT INTO things (id, n) VALUES ('z', 1) ON CONFLICT (n) DO NOTHING")
		}
		if err := db.CheckKey(t.Context(), "things", "id"); err != nil {
			t.Error(err)
		}
		for _, bad := range bad {
			if err := db.Explain(t.Context(), Statement{Text: bad}); KindOf(err) != Fault {
				t.Errorf("explaining %s: %v", bad, err)
			}
		}
		if n := count(t, db); n != 2 {
			t.Errorf("explaining left %d rows, want 2", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := db.Apply(ctx, []Statement{insert(db, "f", 1)}); err == nil || KindOf(err) != Outage {
			t.Errorf("an ended context: %v", err)
		}
		if err := db.Apply(t.Context(), []Statement{insert(db, "f", 1)}); err != nil {
			t.Errorf("after it: %v", err)
		}
	})
}

func TestOutages(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		server := testenv.NewPostgres(t)
		testOutages(t, open(t, server.URL), server, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
	})
	t.Run("mysql", func(t *testing.T) {
		server := testenv.NewMySQL(t)
		testOutages(t, open(t, server.URL), server, "SET SESSION TRANSACTION READ ONLY")
	})
}

// killable is a server that can be killed and started again.
type killable interface {
	Kill(testing.TB)
	Start(testing.TB)
}

func testOutages(t *testing.T, db DB, server killable, readOnly string) {
	if err := db.Migrate(t.Context(), "things_schema", []string{things(db)}); err != nil {
		t.Fatal(err)
	}
	if err := db.Apply(t.Context(), []Statement{insert(db, "a", "x")}); KindOf(err) != Fault {
		t.Errorf("a text for a number: %v", err)
	}
	if db.Dialect().Numbered { // others keep it
		if err := db.Apply(t.Context(), []Statement{insert(db, "a\x00", 1)}); KindOf(err) != Fault {
			t.Errorf("a NUL: %v", err)
		}
	} else if err := db.Apply(t.Context(), []Statement{insert(db, strings.Repeat("a", 256), 1)}); KindOf(err) != Fault {
		t.Errorf("too long: %v", err)
	}
	if err := db.Apply(t.Context(), []Statement{{Text: readOnly}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Apply(t.Context(), []Statement{insert(db, "a", 1)}); err == nil || KindOf(err) != Outage {
		t.Errorf("a read-only database: %v", err)
	}
	server.Kill(t)
	if err := db.Apply(t.Context(), []Statement{{Text: "DELETE FROM things"}}); err == nil || KindOf(err) != Outage {
		t.Errorf("a dead database: %v", err)
	}
	server.Start(t)
	await.That(t, "the database takes statements after the outage", func() (any, bool) {
		err := db.Apply(t.Context(), []Statement{insert(db, "a", 1)})
		if KindOf(err) == Fault {
			t.Fatalf("after the outage: %v", err)
		}
		return err, err == nil
	})
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// A server that became read-only is an outage, not a fault of a statement.
func TestAMySQLThatIsReadOnly(t *testing.T) {
	server := testenv.NewMySQL(t)
	root := server.Restrict(t)
	db := open(t, server.URL)
	if err := db.Migrate(t.Context(), "things_schema", []string{things(db)}); err != nil {
		t.Fatal(err)
	}
	write := func(id string) error { return db.Apply(t.Context(), []Statement{insert(db, id, 1)}) }
	if err := errors.Join(db.CheckPlace(t.Context()), write("a")); err != nil {
		t.Fatal(err)
	}
	root("SET GLOBAL read_only = ON")
	for name, err := range map[string]error{"a check": db.CheckPlace(t.Context()), "a write": write("b")} {
		if err == nil || KindOf(err) != Outage || mysqlNumber(err) != 1290 {
			t.Errorf("%s: %v", name, err)
		}
	}
	root("SET GLOBAL read_only = OFF")
	if err := errors.Join(db.CheckPlace(t.Context()), write("b")); err != nil {
		t.Error(err)
	}
	if n := count(t, db); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestKindsOfMySQL(t *testing.T) {
	for n, want := range map[uint16]Kind{1036: Outage, 1047: Outage, 1180: Outage, 1290: Outage, 1792: Outage, 1836: Outage, 3101: Outage, 3989: Outage, 1062: Fault, 1048: Fault, 1366: Fault} {
		if got := KindOf(judgeMySQL(fmt.Errorf("writing: %w", &mysql.MySQLError{Number: n}))); got != want {
			t.Errorf("%d is of kind %d", n, got)
		}
	}
}

func TestSQLiteAway(t *testing.T) {
	db := open(t, "sqlite:"+filepath.Join(t.TempDir(), "missing", "a.db"))
	if err := db.Apply(t.Context(), []Statement{{Text: "SELECT 1"}}); err == nil || KindOf(err) != Outage {
		t.Errorf("a folder that isn't there: %v", err)
	}
}

func TestURLs(t *testing.T) {
	for _, bad := range []string{"", "x", "sqlite:", "mongo://x", "postgres://[::1", "mysql://[::1", "mysql://host", "mysql://host/x?tls=maybe", "mysql://host/x?charset=latin1"} {
		if _, err := Open(bad, "", 0); err == nil {
			t.Errorf("%q is a database", bad)
		}
	}
	if got := postgresDialect.Quote(`a.b"c`); got != `"a"."b""c"` {
		t.Errorf("quoted: %s", got)
	}
	if KindOf(errors.New("x")) != Outage {
		t.Error("an error of no kind is a fault")
	}
}

// If hosts and pipelines start together, they make the tables once.
func TestMigrateTogether(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		var work sync.WaitGroup
		for range 4 {
			db := open(t, url)
			work.Go(func() {
				if err := db.Migrate(t.Context(), "things_schema", []string{things(db)}); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	})
}
