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

// reserve is a file that takes up room on the store's disk. When the disk is full, the file is
// removed, and its room is for the outcomes of runs that have begun. No other run begins until the
// file is there again.
type reserve struct {
	store string // the path of its file
	// released says that the file was removed because the disk was full. Then it is made again
	// only when twice its size is free. Otherwise the next command would find the disk full again.
	released bool
}

func (r *reserve) path() string { return nextTo(r.store, ".reserve") }

// keep makes the file if it isn't there.
func (r *reserve) keep() error {
	if info, err := os.Lstat(r.path()); err == nil && info.Mode().IsRegular() && info.Size() == reserveSize {
		return nil
	}
	err := r.room()
	if err == nil {
		err = r.fill()
	}
	if err != nil {
		_ = os.Remove(r.path()) // a part of it is of no use
		if full(err) {
			return fmt.Errorf("the disk is full: the outcomes of commands that have begun need a reserve of %d MiB: %w", reserveSize>>20, err)
		}
		return fmt.Errorf("keeping a reserve for the outcomes of commands that have begun: %w", err)
	}
	r.released = false
	return nil
}

// room returns an error if the file was released and too little is free to make it again.
func (r *reserve) room() error {
	var disk unix.Statfs_t
	if !r.released {
		return nil
	}
	if err := unix.Statfs(filepath.Dir(r.path()), &disk); err != nil {
		return err
	}
	if disk.Bavail*uint64(disk.Bsize) < 2*reserveSize { //nolint:gosec // it isn't negative
		return fmt.Errorf("twice as much must be free: %w", syscall.ENOSPC)
	}
	return nil
}

// fill writes the file, with bytes that no file system can compress.
func (r *reserve) fill() error {
	if err := os.Remove(r.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(r.path(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
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

// release removes the file.
func (r *reserve) release() {
	_ = os.Remove(r.path())
	r.released = true
}

// full reports whether an error says that there is no room.
func full(err error) bool {
	if said, ok := errors.AsType[*sqlite.Error](err); ok && said.Code()&0xff == sqlite3.SQLITE_FULL {
		return true
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
