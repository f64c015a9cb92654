package main

import (
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pentrough/pentrough/internal/testenv/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pentrough": main, "bareloop": bareLoop, "watermillloop": watermillLoop, "idlehost": idleHost, "passer": passer, "barerows": bareRows})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, filepath.Join("testdata", "script"))
}

func runScripts(t *testing.T, folder string) {
	t.Helper()
	script.Run(t, folder, "", map[string]func(*testscript.TestScript, bool, []string){"sqlite": changeSQLite})
}

// changeSQLite changes a database: sqlite FILE STATEMENT.
func changeSQLite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sqlite FILE STATEMENT")
	}
	db, err := sql.Open("sqlite", "file:"+ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec(args[1])
	ts.Check(errors.Join(err, db.Close()))
}
