package ledger

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/pentrough/pentrough/internal/printable"
)

// fileLock keeps a second process from a file. The system lets go of it when the process ends, however it ends.
type fileLock struct{ f *os.File }

// maxHolder is how much of a lock file is read.
const maxHolder = 1 << 10

// lockPath returns the path of a ledger's lock.
func lockPath(path string) string { return nextTo(path, ".lock") }

// nextTo returns a path next to a ledger's file. If a symbolic link names the file, it is next to
// the target: so two names of a file have one lock, and the reserve is on the file's disk.
func nextTo(path, suffix string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	return path + suffix
}

// lockFile locks the file at path and writes into it who holds the lock, for those who don't get it.
func lockFile(path, holder string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, inUse(readHolder(f))
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// The lock is taken, even if there is no room to say by whom.
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}
	_, _ = fmt.Fprintf(f, "%s, process %d, since %s\n", holder, os.Getpid(), time.Now().Format(time.RFC3339))
	return &fileLock{f}, nil
}

// inUse returns an ErrInUse that names who uses the store, unless holder is "".
func inUse(holder string) error {
	if holder == "" {
		return ErrInUse
	}
	return fmt.Errorf("%w: %s", ErrInUse, holder)
}

// readHolder returns what lockFile wrote about the process that has the lock, or "".
func readHolder(f io.Reader) string {
	left, err := io.ReadAll(io.LimitReader(f, maxHolder))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(left), "\n")
	return printable.Lines(line)
}

// at reports whether the lock is the file at path.
func (l *fileLock) at(path string) bool {
	own, err := l.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(own, there)
}

func (l *fileLock) release() error { return l.f.Close() }
