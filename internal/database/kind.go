package database

import (
	"context"
	"errors"

	"github.com/go-sql-driver/mysql"
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
	if KindOf(err) == Fault {
		return err
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

// mysqlNumber returns the number of an error of the server, or 0.
func mysqlNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// lostMySQL reports whether a transaction failed only because of another one: a deadlock, or a lock that took too long.
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

// mysqlOutages are the numbers of errors that aren't the statement's doing.
var mysqlOutages = map[uint16]struct{}{
	1021: {}, 1026: {}, 1030: {}, 1037: {}, 1038: {}, 1041: {}, 1114: {}, 1135: {}, 3019: {}, // no room, no memory, the engine's trouble
	1040: {}, 1203: {}, 1226: {}, // too many of us
	1042: {}, 1043: {}, 1053: {}, 1077: {}, 1079: {}, 1080: {}, 1152: {}, 1158: {}, 1159: {}, 1160: {}, 1161: {}, 1184: {}, 1317: {}, 1927: {}, 3168: {}, 3169: {}, 4031: {}, // no connection, or ended
	1044: {}, 1045: {}, 1129: {}, 1130: {}, 1142: {}, 1143: {}, 1227: {}, 1698: {}, 1820: {}, 1862: {}, // nobody let in; somebody can
	1049: {},                     // no such database
	1205: {}, 1213: {}, 1637: {}, // lost against others, again and again
	1036: {}, 1290: {}, 1792: {}, 1836: {}, 3989: {}, // read-only
	1047: {}, 1180: {}, 3100: {}, 3101: {}, // a cluster that has no quorum, or refuses the commit
	1969: {}, 3024: {}, // too slow
}

// judgeSQLite gives an error its kind.
func judgeSQLite(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err // a fault of an argument is one already
	}
	switch e.Code() & 0xff { // without what extended codes add
	case sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return &fault{err}
	}
	return Explain(err)
}
