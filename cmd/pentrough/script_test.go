package main

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"pentrough": main, "racing": main, "bareloop": bareLoop, "watermillloop": watermillLoop, "idlehost": idleHost, "passer": passer, "barerows": bareRows,
		"transportalone": transportAlone, "bareserver": bareServer,
	})
}

// dispatch runs the verbs that start no goroutine, and are over at once, without the race
// detector, which needs three times as long to start.
const dispatch = `#!/bin/sh
case "$1 $2" in
completion* | __complete* | graph* | help* | --help* | init* | plugins* | protocols* | schema* | validate* | version*)
	exec %q "$@"
	;;
esac
exec racing "$@"
`

func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, filepath.Join("testdata", "script"))
}

func runScripts(t *testing.T, folder string) {
	t.Helper()
	dispatcher := fmt.Sprintf(dispatch, filepath.Join(testenv.Programs(t, "./cmd/pentrough"), "pentrough"))
	programs := t.TempDir()
	if err := os.WriteFile(filepath.Join(programs, "pentrough"), []byte(dispatcher), 0o755); err != nil {
		t.Fatal(err)
	}
	script.Run(t, folder, programs, map[string]func(*testscript.TestScript, bool, []string){"sqlite": changeSQLite})
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
