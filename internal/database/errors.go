package database

import (
	"errors"
	"fmt"
	"io/fs"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Why a database can't be used.
var (
	// ErrNone means that no host made the tables yet.
	ErrNone = errors.New("no host made its tables there yet")
	// ErrSchema means that another version of the program made the tables.
	ErrSchema = errors.New("another version of pentrough wrote it")
	// ErrDamaged means that a file was a SQLite database once and is none now, or not a whole one.
	ErrDamaged = errors.New("the file is damaged")
	// ErrNotSQLite means that a file isn't a SQLite database.
	ErrNotSQLite = errors.New("it isn't a SQLite database")
)

func otherSchema(has, own int64) error {
	return fmt.Errorf("%w: its schema has version %d, this one's is %d", ErrSchema, has, own)
}

// Explain adds to an error of SQLite what it means: [ErrDamaged], [ErrNotSQLite],
// [fs.ErrPermission] or a full disk. Other errors, a server's among them, stay as they are.
func Explain(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE {
		// The index of the log doesn't fit.
		return fmt.Errorf("the disk is full: %w", err)
	}
	switch e.Code() & 0xff { // without what extended codes add
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.SQLITE_NOTADB:
		return ErrNotSQLite
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	}
	return err
}
