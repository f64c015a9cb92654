package database

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

var ownSchema = Schema{
	Dialect: SQLite(), Versions: "goose_db_version", Table: "things",
	Migrations: fstest.MapFS{"migrations/sqlite/00001_things.sql": {Data: []byte("-- +goose Up\nCREATE TABLE things (n integer);\n")}},
}

func TestSchemaOfAFile(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "own.db")}
	if _, err := f.Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := f.OpenToRead(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file, to read: %v", err)
	}
	f.Create = true
	db, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if _, err := ownSchema.Check(t.Context(), db); !errors.Is(err, ErrNone) {
		t.Errorf("without tables: %v", err)
	}
	for range 2 {
		if err := ownSchema.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
	}
	if version, err := ownSchema.Check(t.Context(), db); version != 1 || err != nil {
		t.Errorf("version %d, %v", version, err)
	}
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9, true)`); err != nil {
		t.Fatal(err)
	}
	_, checked := ownSchema.Check(t.Context(), db)
	for _, err := range []error{checked, ownSchema.Migrate(t.Context(), db)} {
		if !errors.Is(err, ErrSchema) || !strings.HasSuffix(err.Error(), "its schema has version 9, and this program's has version 1") {
			t.Errorf("a newer schema: %v", err)
		}
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	folder := t.TempDir()
	text := filepath.Join(folder, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("text", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := File{Path: text}.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := Explain(ownSchema.Migrate(t.Context(), db)); !errors.Is(err, ErrNotSQLite) {
		t.Error(err)
	}
	if _, err := (File{Path: folder, Create: true}).Open(); err == nil || err.Error() != "is a directory" {
		t.Error(err)
	}
	if _, err := (File{Path: filepath.Join(folder, "no", "folder"), Create: true}).Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestAFileIsReadWithoutATrace(t *testing.T) {
	f := File{Path: filepath.Join(t.TempDir(), "own.db"), Create: true}
	db, err := f.Open()
	if err == nil {
		err = errors.Join(ownSchema.Migrate(t.Context(), db), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	reading, unchanged, err := f.OpenToRead()
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	if _, err := ownSchema.Check(t.Context(), reading); err != nil {
		t.Error(err)
	}
	if files, err := os.ReadDir(filepath.Dir(f.Path)); len(files) != 1 || err != nil || unchanged() != nil {
		t.Errorf("the folder has %v, %v", files, err)
	}
	if err := os.WriteFile(f.Path+"-wal", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if unchanged() == nil {
		t.Error("a host that starts meanwhile isn't noticed")
	}
}

func TestWhere(t *testing.T) {
	var w Where
	if w.String() != "" {
		t.Errorf("nothing is %q", w.String())
	}
	name := "x"
	w.AndEqual("id", &name)
	w.AndEqual("device", nil)
	w.And("number < ?", 7)
	AndIn(&w, "state", []int{1, 2})
	AndIn(&w, "kind", []int(nil))
	if got := PostgreSQL().Positional(w.String()); got != " WHERE id = $1 AND number < $2 AND state IN (1, 2)" || len(w.Args) != 2 {
		t.Errorf("%q, %v", got, w.Args)
	}
}

func TestPages(t *testing.T) {
	broken := errors.New("broken")
	n := 0
	rows := Pages(func(first bool) ([]int, bool, error) {
		if first {
			n = 0
		}
		if n++; n == 3 {
			return nil, false, broken
		}
		return []int{n, n}, true, nil
	})
	for range 2 { // it can be ranged over again
		var got []int
		var last error
		for r, err := range rows {
			if err != nil {
				last = err
				continue
			}
			got = append(got, r)
		}
		if len(got) != 4 || !errors.Is(last, broken) {
			t.Errorf("%v, %v", got, last)
		}
	}
}
