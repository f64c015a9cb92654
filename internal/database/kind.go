package database

import (
	"context"
	"errors"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Kind says what caused an error.
type Kind int

const (
	// Outage: the database can't be used now, whatever the statement is.
	Outage Kind = iota
	// Fault: the statement or its arguments are wrong. Another attempt would fail, too.
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

// maxAttempts is how often a transaction is tried if it fails because of another transaction.
const maxAttempts = 5

// retryLost calls do until it doesn't fail because of another transaction.
func retryLost(ctx context.Context, do func() error, lost func(error) bool) error {
	for n := 1; ; n++ {
		err := do()
		if err == nil || n == maxAttempts || ctx.Err() != nil || !lost(err) {
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

// judgePostgres gives an error its kind. usable says whether the connection is still usable.
func judgePostgres(err error, usable bool) error {
	if err == nil {
		return nil
	}
	if KindOf(err) == Fault {
		return err
	}
	code := sqlState(err)
	if code == "" {
		// If pgx itself refuses an argument, such as a text for a number, the connection stays
		// usable.
		if usable && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return &fault{err}
		}
		return err
	}
	switch code[:2] {
	case "08", "25", "26", "28", "3D", "40", "53", "55", "57", "58", "XX":
		// The classes of errors, in this order: no connection; a read-only or failed transaction;
		// a statement that a connection pooler has lost; a refused login; no such database; a
		// deadlock; no resources; not ready; an operator; the system; an internal error.
		return err
	}
	if code == "42501" && usable { // a missing permission, which may be granted
		return err
	}
	return &fault{err}
}

// mysqlNumber returns the number of an error of the server, or 0.
func mysqlNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// lostMySQL reports whether a transaction failed only because of another one: by a deadlock, or
// while waiting for a lock.
func lostMySQL(err error) bool {
	n := mysqlNumber(err)
	return n == 1213 || n == 1205
}

// judgeMySQL gives an error its kind.
func judgeMySQL(err error) error {
	n := mysqlNumber(err)
	if n == 0 {
		return err
	}
	if _, outage := mysqlOutages[n]; outage {
		return err
	}
	return &fault{err}
}

// mysqlOutages has the numbers of the errors that the statement doesn't cause.
var mysqlOutages = map[uint16]struct{}{
	// No disk space, no memory, or an error of the engine.
	1021: {}, 1026: {}, 1030: {}, 1037: {}, 1038: {}, 1041: {}, 1114: {}, 1135: {}, 3019: {},
	// Too many connections.
	1040: {}, 1203: {}, 1226: {},
	// No connection, or it was ended.
	1042: {}, 1043: {}, 1053: {}, 1077: {}, 1079: {}, 1080: {}, 1152: {}, 1158: {}, 1159: {},
	1160: {}, 1161: {}, 1184: {}, 1317: {}, 1927: {}, 3168: {}, 3169: {}, 4031: {},
	// A refused login, or a missing permission that may be granted.
	1044: {}, 1045: {}, 1129: {}, 1130: {}, 1142: {}, 1143: {}, 1227: {}, 1698: {}, 1820: {}, 1862: {},
	// No such database.
	1049: {},
	// Repeated conflicts with other transactions.
	1205: {}, 1213: {}, 1637: {},
	// Read-only.
	1036: {}, 1290: {}, 1792: {}, 1836: {}, 3989: {},
	// A cluster without a quorum, or one that refuses the commit.
	1047: {}, 1180: {}, 3100: {}, 3101: {},
	// A time limit.
	1969: {}, 3024: {},
}

// judgeSQLite gives an error its kind.
func judgeSQLite(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err // such as a fault of an argument, which has its kind
	}
	switch e.Code() & 0xff { // without what extended codes add
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return &fault{err}
	}
	return Explain(err)
}
