package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pentrough/pentrough/internal/database"
)

var sqliteDialect = dialect{
	// The versions have goose's own name: the file is the ledger's alone.
	Schema: database.Schema{Dialect: database.SQLite(), Migrations: migrations, Versions: "goose_db_version", Table: "ledger"},
	// An index would have to be sorted for every page.
	walk: "ledger NOT INDEXED", changed: "changed",
}

// Inspect opens the file to be read, also while a host uses it. It makes no file.
func (s *SQLite) Inspect(ctx context.Context) (*Inspector, error) {
	in, err := s.inspector()
	if err != nil {
		return nil, err
	}
	if in.db, in.verify, err = (database.File{Path: in.Place}).OpenToRead(); err != nil {
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
	lock, err := lockFile(lockPath(in.Place), "a repair of the ledger")
	if err != nil {
		return nil, in.explain(err)
	}
	r := &Repair{Inspector: in, end: func() error { return errors.Join(in.Close(), lock.release()) }}
	if err = own(in.Place, lock); err == nil {
		in.db, err = database.File{Path: in.Place, Durable: true}.Open()
	}
	if err != nil {
		return nil, errors.Join(in.explain(err), r.Close())
	}
	if err := in.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
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
	if err := (database.File{Path: absolute}).Readable(); err != nil {
		return nil, in.explain(err)
	}
	return in, nil
}

// own gives a lock file to the database's owner, as SQLite does with the files that it makes: root's would keep the host out.
func own(path string, l *fileLock) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return l.f.Chown(int(owner.Uid), int(owner.Gid))
}
