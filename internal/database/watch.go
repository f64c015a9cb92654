package database

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// CheckInterval is the time between two comparisons of an open file with the one at its path. A
// host writes to a removed or replaced file for at most that long.
const CheckInterval = time.Second

// These errors say why an open file isn't the one at its path.
var (
	// ErrRemoved means that nothing is at the path.
	ErrRemoved = errors.New("the file was removed while it was in use")
	// ErrReplaced means that another file is at the path.
	ErrReplaced = errors.New("another file is in its place")
	// ErrUnmounted means that the path's folder is on another disk than the file.
	ErrUnmounted = errors.New("its folder is on another disk than before: mount the disk that has the file")
)

// Watch identifies the files that a connection to a SQLite file has open, and their folder. SQLite
// continues to write to a file that was removed or renamed, and reports no error. A Watch never
// opens a file, since closing it again would end SQLite's locks.
type Watch struct {
	path string
	// log is the path of the log without its suffix -wal. If the path is a symbolic link, SQLite
	// keeps the log next to the target.
	log    string
	folder fs.FileInfo
	// open has the file, its log and the log's index. It has nil for a file that didn't exist.
	open [3]fs.FileInfo
}

// Watch returns a Watch of a connection to the file. Call it after the connection has read the
// file. Before that the log may not exist, and then the Watch doesn't check it.
func (f File) Watch() (*Watch, error) {
	w := &Watch{path: f.Path}
	var err error
	if w.log, err = filepath.EvalSymlinks(f.Path); err != nil {
		return nil, withoutPath(err)
	}
	if w.folder, err = os.Stat(filepath.Dir(f.Path)); err != nil {
		return nil, withoutPath(err)
	}
	for i, path := range w.paths() {
		if w.open[i], err = os.Stat(path); err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return nil, withoutPath(err)
		}
	}
	return w, nil
}

func (w *Watch) paths() [3]string { return [...]string{w.path, w.log + "-wal", w.log + "-shm"} }

// Check returns why the open files aren't those at their paths, or nil.
func (w *Watch) Check() error {
	if err := w.CheckFile(); err != nil {
		return err
	}
	for i, path := range w.paths() {
		if err := w.compareFile(i, path); err != nil && i > 0 {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

// CheckFile is Check without the log and its index, which a new connection makes again. Only after
// [ErrRemoved] may the caller make the file again.
func (w *Watch) CheckFile() error {
	folder, err := os.Stat(filepath.Dir(w.path))
	if err != nil {
		return withoutPath(err)
	}
	err = w.compareFile(0, w.path)
	if err != nil && device(folder) != device(w.folder) {
		return ErrUnmounted
	}
	return err
}

// compareFile returns why the ith open file isn't the one at path, or nil.
func (w *Watch) compareFile(i int, path string) error {
	if w.open[i] == nil {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrRemoved
	case err != nil:
		return withoutPath(err)
	case !os.SameFile(info, w.open[i]):
		return ErrReplaced
	}
	return nil
}
