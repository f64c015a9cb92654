package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteVersions is goose's own name: the file is the ledger's alone.
const sqliteVersions = "goose_db_version"

var sqliteDialect = dialect{
	migrations: "sqlite", versions: sqliteVersions,
	exists: `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?`,
	// An index would have to be sorted for every page.
	table: "ledger", walk: "ledger NOT INDEXED", changed: "changed",
	argument: func(int) string { return "?" },
	explain:  explainSQLite,
}

// explainSQLite adds to an error of SQLite what it means for a ledger.
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
	case sqlite3.SQLITE_CORRUPT:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case sqlite3.SQLITE_NOTADB:
		return ErrNotSQLite
	default:
		return err
	}
}

// Inspect opens the file to be read, also while a host uses it. It makes no file.
func (s *SQLite) Inspect(ctx context.Context) (*Inspector, error) {
	in, err := s.inspector()
	if err != nil {
		return nil, err
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	// Without a log there is no host, and nothing to read but the file; SQLite would make a log and leave it behind, with an owner who
	// may not be the host's.
	if missing(in.Place + "-wal") {
		query.Set("immutable", "1")
		in.verify = func() error {
			if missing(in.Place + "-wal") {
				return nil
			}
			return errors.New("a host started to use it in this moment; ask again")
		}
	}
	in.db, err = sql.Open("sqlite", (&url.URL{Scheme: "file", Path: in.Place, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, in.explain(err)
	}
	if err := in.open(ctx); err != nil {
		return nil, err
	}
	return in, nil
}

// Repair opens the file so that rows can be removed, and keeps hosts out. It makes no file.
func (s *SQLite) Repair(ctx context.Context) (*Repair, error) {
	in, err := s.inspector()
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(in.Place + ".lock")
	if errors.Is(err, ErrInUse) {
		err = ErrInUse // a host is told more
	}
	if err != nil {
		return nil, in.explain(err)
	}
	r := &Repair{Inspector: in, end: func() error { return errors.Join(in.Close(), lock.release()) }}
	if err = own(in.Place, lock); err == nil {
		in.db, err = openSQLite(in.Place, "rw")
	}
	if err != nil {
		return nil, errors.Join(in.explain(err), r.Close())
	}
	if err := in.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	if _, err := in.conn.ExecContext(ctx, "PRAGMA synchronous = FULL"); err != nil {
		return nil, errors.Join(in.explain(err), r.Close())
	}
	return r, nil
}

// inspector returns one for the file if it is there and may be read.
func (s *SQLite) inspector() (*Inspector, error) {
	absolute, err := filepath.Abs(s.path)
	if err != nil {
		return nil, err
	}
	in := &Inspector{Place: absolute, dialect: sqliteDialect}
	f, err := os.Open(absolute)
	if err != nil {
		return nil, in.explain(withoutCall(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, in.explain(withoutCall(err))
	case info.IsDir():
		return nil, in.explain(syscall.EISDIR)
	}
	return in, nil
}

// own gives a lock file to the database's owner, as SQLite does with the files that it makes: root's would keep the host out.
func own(database string, l *fileLock) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(database)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return l.f.Chown(int(owner.Uid), int(owner.Gid))
}

// withoutCall is the error of a system call on a file whose name is told anyway.
func withoutCall(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
