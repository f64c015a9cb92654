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
	// The table of versions has goose's default name, since only the ledger uses the file.
	Schema: database.Schema{Dialect: database.SQLite(), Migrations: migrations, Versions: "goose_db_version", Table: "ledger"},
	// If SQLite used an index, it would sort all rows for every page.
	walk: "ledger NOT INDEXED", changed: "changed",
}

// Inspect opens the file for reading, also while a host uses it. It makes no file.
func (s *SQLite) Inspect(ctx context.Context) (*Inspector, error) {
	in, err := s.newInspector()
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

// Repair opens the file for removing rows, and locks it against hosts. It makes no file.
func (s *SQLite) Repair(ctx context.Context) (*Repair, error) {
	in, err := s.newInspector()
	if err != nil {
		return nil, err
	}
	lock, err := lockFile(lockPath(in.Place), "a repair of the ledger")
	if err != nil {
		return nil, in.explain(err)
	}
	r := &Repair{Inspector: in, end: func() error { return errors.Join(in.Close(), lock.unlock()) }}
	if err = chownLock(in.Place, lock); err == nil {
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

// newInspector returns an Inspector of the file. It returns an error if the file is missing or
// can't be read.
func (s *SQLite) newInspector() (*Inspector, error) {
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

// chownLock gives the lock file to the owner of the database, as SQLite does with the files that
// it makes. A lock file of root would keep the host from using the store.
func chownLock(path string, l *fileLock) error {
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
