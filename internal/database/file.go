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
	// Create makes a missing file. Without it, the error is [fs.ErrNotExist].
	Create bool
	// Shared lets the umask decide who may use a file that is made, since other programs read it.
	// Without it, only the owner may use the file.
	Shared bool
	// Mode has the permissions of a file that is made, whatever the umask. If it is zero, Shared
	// decides.
	Mode fs.FileMode
	// Durable makes each commit reach the disk. Without it, a commit survives the end of the
	// process, but perhaps not a crash of the machine.
	Durable bool
}

// Open opens the file, with one connection. A transaction takes the write lock when it begins, and
// waits for it. The files of the log get the permissions of the file.
func (f File) Open() (*sql.DB, error) {
	err := checkAccess(f.Path, readable|writable)
	if f.Create && errors.Is(err, fs.ErrNotExist) {
		err = f.createFile()
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

// OpenToRead opens the file for reading, also while a host uses it. It makes no file. After a read
// the caller calls unchanged, which returns why the read data may be wrong, or nil.
func (f File) OpenToRead() (db *sql.DB, unchanged func() error, err error) {
	if err := f.Readable(); err != nil {
		return nil, nil, err
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {busy}}
	unchanged = func() error { return nil }
	// Without a log, no host uses the file, and all data is in the file itself. If SQLite opened
	// it as usual, it would make a log and leave it there, perhaps with another owner than the
	// host's.
	if log := f.Path + "-wal"; isMissing(log) {
		query.Set("immutable", "1")
		unchanged = func() error {
			if isMissing(log) {
				return nil
			}
			return errors.New("a host has just started to use it; try again")
		}
	}
	db, err = openFile(f.Path, query)
	return db, unchanged, err
}

// Readable returns why the file can't be opened for reading, or nil.
func (f File) Readable() error { return checkAccess(f.Path, readable) }

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

// createFile makes an empty file with the right permissions. SQLite would let all users read it.
func (f File) createFile() error {
	if !f.Shared {
		// Only one host makes the file, so an existing log belongs to a removed file. If a process
		// still reads the removed file, SQLite would use the index of its log for the new file.
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
	case errors.Is(err, fs.ErrExist): // another process has made it
		return checkAccess(f.Path, readable|writable)
	case err != nil:
		return withoutPath(err)
	}
	if f.Mode != 0 {
		err = made.Chmod(f.Mode)
	}
	return errors.Join(err, made.Close())
}

// OpenToOthers returns the permissions of a file if not only its owner can read or write it.
// Otherwise it returns zero.
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

// checkAccess returns why a file can't be opened, or nil. SQLite wouldn't report the reason.
// checkAccess doesn't open the file: closing the file again would end all locks that the process
// has on it, also those of other connections.
func checkAccess(path string, access uint32) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return withoutPath(err)
	case info.IsDir():
		return syscall.EISDIR
	}
	return unix.Access(path, access)
}

// withoutPath returns the cause of an error about a file. The caller adds the path.
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

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}
