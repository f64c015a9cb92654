// If a command has begun, bytes may have reached its device. The host must be able to record the
// outcome of such a command even if the disk is full. So it reserves disk space, in a file next to
// the store.
//
//	reserved  the file is there, and commands may begin
//	released  the disk was full: the file was removed, and outcomes use its space
//
// A released file is made again when twice its size is free. Until then the journal reports an
// outage, so that no command begins. During this outage, the journal writes only the rows that
// memory has and the store lacks.

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

// reserveSize is the size of the file in bytes. The outcomes of 1,000 commands with results of 400
// bytes each take 1.9 MiB in SQLite's log and file.
const reserveSize = 4 << 20

// diskReserve is the file that reserves disk space.
type diskReserve struct {
	store string // the path of the store's file
	// released says that the file was removed, since the disk was full.
	released bool
}

func (r *diskReserve) path() string { return nextTo(r.store, ".reserve") }

// ensureFile makes the file if it isn't there.
func (r *diskReserve) ensureFile() error {
	if info, err := os.Lstat(r.path()); err == nil && info.Mode().IsRegular() && info.Size() == reserveSize {
		return nil
	}
	err := r.checkRoom()
	if err == nil {
		err = r.writeFile()
	}
	if err != nil {
		_ = os.Remove(r.path()) // an incomplete file is of no use
		if isDiskFull(err) {
			return fmt.Errorf("the disk is full: the outcomes of commands that have begun need a reserve of %d MiB: %w", reserveSize>>20, err)
		}
		return fmt.Errorf("reserving disk space for the outcomes of commands that have begun: %w", err)
	}
	r.released = false
	return nil
}

// checkRoom returns an error if the file was released and less than twice its size is free. With
// less, the next command would find the disk full again.
func (r *diskReserve) checkRoom() error {
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

// writeFile writes the file, with bytes that no file system can compress.
func (r *diskReserve) writeFile() error {
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

// removeFile removes the file, so that outcomes can use its space.
func (r *diskReserve) removeFile() {
	_ = os.Remove(r.path())
	r.released = true
}

// isDiskFull reports whether an error means that the disk is full, or a quota is used up.
func isDiskFull(err error) bool {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code()&0xff == sqlite3.SQLITE_FULL {
		return true
	}
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
