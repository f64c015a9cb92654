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

// fileLock keeps other processes from using a file. The system releases it when the process ends,
// even after a crash.
type fileLock struct{ f *os.File }

// maxHolder is the most bytes that are read from a lock file.
const maxHolder = 1 << 10

// lockPath returns the path of a ledger's lock.
func lockPath(path string) string { return nextTo(path, ".lock") }

// nextTo returns a path next to a ledger's file. If path is a symbolic link, the result is next to
// its target. So all names of a file share one lock, and the reserve is on the disk of the file.
func nextTo(path, suffix string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	return path + suffix
}

// lockFile locks the file at path and writes holder into it. A process that can't get the lock
// reads the holder from the file.
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
	// The lock works even if the disk is full and the holder can't be written.
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}
	_, _ = fmt.Fprintf(f, "%s, process %d, since %s\n", holder, os.Getpid(), time.Now().Format(time.RFC3339))
	return &fileLock{f}, nil
}

// inUse returns ErrInUse with the holder, if that is known.
func inUse(holder string) error {
	if holder == "" {
		return ErrInUse
	}
	return fmt.Errorf("%w: %s", ErrInUse, holder)
}

// readHolder returns the holder that lockFile wrote, or "" if it can't be read.
func readHolder(f io.Reader) string {
	text, err := io.ReadAll(io.LimitReader(f, maxHolder))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return printable.Lines(line)
}

// isFileAt reports whether the locked file is the one at path.
func (l *fileLock) isFileAt(path string) bool {
	own, err := l.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(own, there)
}

func (l *fileLock) unlock() error { return l.f.Close() }
