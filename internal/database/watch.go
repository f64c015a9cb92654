package database

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// CheckInterval is how often an open file is compared with the one at its path. A file that was
// removed or replaced is written to for at most that long.
const CheckInterval = time.Second

// These errors say why an open file isn't the one at its path.
var (
	// ErrRemoved means that nothing is at the path.
	ErrRemoved = errors.New("the file was removed while it was in use")
	// ErrReplaced means that another file is at the path.
	ErrReplaced = errors.New("another file is in its place")
	// ErrUnmounted means that the path's folder is on another disk than the file was.
	ErrUnmounted = errors.New("its folder is on another disk than before: mount the disk that has the file")
)

// Watch remembers which files a connection to a SQLite file has open, and their folder. SQLite goes
// on writing to a file that was removed or renamed, and reports nothing. A Watch only asks for the
// status of files: if it opened one, closing it again would end SQLite's locks.
type Watch struct {
	path string
	// log is the path of the log without its -wal: SQLite has it beside the file that a symbolic link
	// names.
	log    string
	folder fs.FileInfo
	// open are the file, its log and the log's index; nil is one that wasn't there.
	open [3]fs.FileInfo
}

// Watch returns a Watch of a connection to the file. Call it when the connection has read the file:
// before that the log may not be there, and isn't compared.
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
		if err := w.same(i, path); err != nil && i > 0 {
			return fmt.Errorf("%s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

// CheckFile is Check without the log and its index, which a new connection makes anew. After
// [ErrRemoved], and no other error, the file may be made anew.
func (w *Watch) CheckFile() error {
	folder, err := os.Stat(filepath.Dir(w.path))
	if err != nil {
		return withoutPath(err)
	}
	err = w.same(0, w.path)
	if err != nil && device(folder) != device(w.folder) {
		return ErrUnmounted
	}
	return err
}

func (w *Watch) same(i int, path string) error {
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
