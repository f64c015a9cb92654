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
	// ErrNone means that no host has made the tables yet.
	ErrNone = errors.New("no host has made its tables there yet")
	// ErrSchema means that another version of the program made the tables.
	ErrSchema = errors.New("another version of pentrough wrote it")
	// ErrDamaged means that a file has a damaged SQLite database.
	ErrDamaged = errors.New("the file is damaged")
	// ErrNotSQLite means that a file isn't a SQLite database.
	ErrNotSQLite = errors.New("it isn't a SQLite database")
)

func otherSchema(has, own int64) error {
	return fmt.Errorf("%w: its schema has version %d, and this program's has version %d", ErrSchema, has, own)
}

// Explain adds the meaning to an error of SQLite: [ErrDamaged], [ErrNotSQLite], [fs.ErrPermission]
// or a full disk. It returns other errors unchanged, such as those of a server.
func Explain(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE {
		// There is no room for the index of the log.
		return fmt.Errorf("the disk is full: %w", err)
	}
	switch e.Code() & 0xff { // the primary code of an extended one
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.SQLITE_NOTADB:
		return ErrNotSQLite
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	}
	return err
}
