package database

import (
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// busy is how long a connection waits for another one's lock, in milliseconds.
const busy = "busy_timeout(5000)"

// File says how a SQLite file is opened.
type File struct {
	Path string
	// Create makes a missing file; without it that is [fs.ErrNotExist].
	Create bool
	// Shared lets the umask decide who may use a file that is made, as other programs read it. A
	// file is its owner's alone without it.
	Shared bool
	// Mode is the permissions of a file that is made, whatever the umask; zero leaves Shared to say it.
	Mode fs.FileMode
	// Durable has each commit reach the disk. Without it a commit survives the process's end but
	// perhaps not the machine's.
	Durable bool
}

// Open returns the file behind one connection. A transaction begins with the write lock and waits
// for it. Files of the log are made with the permissions of the file.
func (f File) Open() (*sql.DB, error) {
	err := usable(f.Path, readable|writable)
	if f.Create && errors.Is(err, fs.ErrNotExist) {
		err = f.create()
	}
	if err != nil {
		return nil, err
	}
	synchronous := "synchronous(NORMAL)"
	if f.Durable {
		synchronous = "synchronous(FULL)"
	}
	return openFile(f.Path, url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {busy, "journal_mode(WAL)", synchronous}})
}

// OpenToRead opens the file to be read, also while a host uses it. It makes no file. unchanged,
// called after a read, returns why what was read may be wrong.
func (f File) OpenToRead() (db *sql.DB, unchanged func() error, err error) {
	if err := f.Readable(); err != nil {
		return nil, nil, err
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {busy}}
	unchanged = func() error { return nil }
	// Without a log there is no host, and nothing to read but the file; SQLite would make a log and leave it behind, with an owner who
	// may not be the host's.
	if log := f.Path + "-wal"; missing(log) {
		query.Set("immutable", "1")
		unchanged = func() error {
			if missing(log) {
				return nil
			}
			return errors.New("a host started to use it in this moment; ask again")
		}
	}
	db, err = openFile(f.Path, query)
	return db, unchanged, err
}

// Readable returns why the file can't be opened to be read.
func (f File) Readable() error { return usable(f.Path, readable) }

func openFile(path string, query url.Values) (*sql.DB, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: absolute, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// create makes an empty file. SQLite would let everybody read it.
func (f File) create() error {
	if !f.Shared {
		// Only one host makes the file. A log that is there is that of a removed file, and a process
		// that still reads that one would have SQLite take its index for the new file's.
		for _, left := range []string{"-wal", "-shm"} {
			if err := os.Remove(f.Path + left); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return withoutPath(err)
			}
		}
	}
	mode := fs.FileMode(0o600)
	if f.Shared {
		mode = 0o644
	}
	if f.Mode != 0 {
		mode = f.Mode
	}
	made, err := os.OpenFile(f.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	switch {
	case errors.Is(err, fs.ErrExist): // another process was quicker
		return usable(f.Path, readable|writable)
	case err != nil:
		return withoutPath(err)
	}
	if f.Mode != 0 {
		err = made.Chmod(f.Mode)
	}
	return errors.Join(err, made.Close())
}

// OpenToOthers returns the permissions of a file that not only its owner can read or write, and
// zero for every other file.
func OpenToOthers(path string) fs.FileMode {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o077 == 0 {
		return 0
	}
	return info.Mode().Perm()
}

// Modes of access(2).
const (
	readable = 4
	writable = 2
)

// usable returns why a file can't be opened, which SQLite wouldn't say. It doesn't try to: closing a
// file ends all locks that the process has on it, those of other connections among them.
func usable(path string, access uint32) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return withoutPath(err)
	case info.IsDir():
		return syscall.EISDIR
	}
	return unix.Access(path, access)
}

// withoutPath returns the cause of an error about a file, whose path the caller names.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// device returns the number of the disk that a file is on.
func device(info fs.FileInfo) uint64 {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(stat.Dev) //nolint:unconvert // another type on other systems
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
