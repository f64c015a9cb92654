package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// reserveSize is the room that is kept for the outcomes of runs that have begun. Those of 1,000
// commands with results of 400 bytes each take 1.9 MiB in SQLite's log and file.
const reserveSize = 4 << 20

// reserve is a file that takes up room on the store's disk. When the disk is full it is removed, and
// the outcomes of runs that have begun have its room. Nothing else begins until it is there again.
type reserve struct {
	path string
	// released says that there was no room. Then as much again must be free before the file is made,
	// so that what begins next doesn't find the disk full at once.
	released bool
}

// keep makes the file if it isn't there.
func (r *reserve) keep() error {
	if info, err := os.Lstat(r.path); err == nil && info.Mode().IsRegular() && info.Size() == reserveSize {
		return nil
	}
	err := r.room()
	if err == nil {
		err = r.fill()
	}
	if err != nil {
		_ = os.Remove(r.path) // what there is of it is no use
		if errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("the disk is full: the outcomes of commands that have begun need a reserve of %d MiB: %w", reserveSize>>20, err)
		}
		return fmt.Errorf("keeping a reserve for the outcomes of commands that have begun: %w", err)
	}
	r.released = false
	return nil
}

// room returns an error if there isn't as much room as there has to be after a full disk.
func (r *reserve) room() error {
	var disk unix.Statfs_t
	if !r.released {
		return nil
	}
	if err := unix.Statfs(filepath.Dir(r.path), &disk); err != nil {
		return err
	}
	if disk.Bavail*uint64(disk.Bsize) < 2*reserveSize { //nolint:gosec,unconvert // it isn't negative, and has another type on other systems
		return fmt.Errorf("twice as much must be free: %w", syscall.ENOSPC)
	}
	return nil
}

// fill writes the file, with bytes that no file system can leave out.
func (r *reserve) fill() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	noise, block := rand.NewChaCha8([32]byte{}), make([]byte, 64<<10)
	for written := 0; written < reserveSize && err == nil; written += len(block) {
		_, _ = noise.Read(block) // it never fails
		_, err = f.Write(block)
	}
	return errors.Join(err, f.Close())
}

// release gives the room up.
func (r *reserve) release() {
	_ = os.Remove(r.path)
	r.released = true
}

// full reports whether an error says that there is no room.
func full(err error) bool {
	if said, ok := errors.AsType[*sqlite.Error](err); ok && said.Code()&0xff == sqlite3.SQLITE_FULL {
		return true
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
