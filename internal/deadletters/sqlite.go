package deadletters

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

var sqliteDialect = dialect{
	goose: goose.DialectSQLite3, migrations: "sqlite", versions: "goose_db_version", table: "poison",
	exists: `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?`,
	now:    `CAST(unixepoch('subsec') * 1000 AS INTEGER)`, position: "instr",
	explain: explainSQLite,
}

// NewSQLite returns a store in the file at path, which is the dead letters' alone. A host makes it if it is missing.
func NewSQLite(path, host string) *Store {
	return &Store{place: path, host: host, dialect: &sqliteDialect, connect: func(_ context.Context, create bool) (*sql.DB, error) {
		return openSQLite(path, create)
	}}
}

func openSQLite(path string, create bool) (*sql.DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// SQLite would not say why it can't, and would let everybody read it.
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(absolute, flags, 0o600)
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// Changes begin with the lock, and wait for it: a host and operators write to the same file. A commit reaches the disk.
	query := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: absolute, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// explainSQLite adds to an error of SQLite what it means.
func explainSQLite(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	if e.Code() == sqlite3.SQLITE_IOERR_SHMSIZE {
		// The index of the log doesn't fit.
		return fmt.Errorf("the disk is full: %w", err)
	}
	switch e.Code() & 0xff { // without what extended codes add
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	default:
		return err
	}
}
