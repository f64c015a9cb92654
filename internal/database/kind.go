package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Kind says whose fault an error is.
type Kind int

const (
	// Outage: the database can't be used now, whatever is asked of it.
	Outage Kind = iota
	// Fault: the statement or its arguments are wrong, and will be again.
	Fault
)

// KindOf returns the kind of an error of a [DB].
func KindOf(err error) Kind {
	if _, ok := errors.AsType[*fault](err); ok {
		return Fault
	}
	return Outage
}

// fault marks an error as a [Fault].
type fault struct{ err error }

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// tries is how often a transaction is begun that loses against another one.
const tries = 5

// again runs do until it doesn't lose against another transaction.
func again(ctx context.Context, do func() error, lost func(error) bool) error {
	for n := 1; ; n++ {
		err := do()
		if err == nil || n == tries || ctx.Err() != nil || !lost(err) {
			return err
		}
	}
}

// sqlState returns the code of a PostgreSQL error, or "".
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// lostPostgres reports whether a transaction failed only because of another one.
func lostPostgres(err error) bool {
	switch sqlState(err) {
	case "40001", "40P01":
		return true
	}
	return false
}

// judgePostgres gives an error its kind. usable says that the connection is.
func judgePostgres(err error, usable bool) error {
	if err == nil {
		return nil
	}
	code := sqlState(err)
	if code == "" {
		// What pgx itself refuses, such as a text for a number, leaves the connection as it was.
		if usable && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return &fault{err}
		}
		return err
	}
	switch code[:2] {
	case "08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "XX":
		// No connection, read-only or in a state of no use, a statement that a pool of connections forgot, nobody let in, no such database, deadlock, no resources, not ready, an operator, the system, itself.
		return err
	}
	if code == "42501" && usable { // no permission: not the row's doing, and somebody can give it
		return err
	}
	return &fault{err}
}

// judgeSQLite gives an error its kind.
func judgeSQLite(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff { // without what extended codes add
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return &fault{err}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("the file is damaged, or no SQLite database: %w", err)
	}
	return err
}
