// Package newfile writes the files that a user names, such as `-o FILE`.
package newfile

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Write puts a file at path in one step: it is written under another name in the same folder, and
// renamed when it is complete. A link at path is replaced; what it points to isn't touched. Write
// replaces nothing in /dev and /proc, such as /dev/stdout, and no device or pipe elsewhere: it
// opens them and writes.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	if isOpened(path) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	temporary := path + "." + rand.Text() + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return &fs.PathError{Op: e.Op, Path: path, Err: e.Err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(temporary))
		}
	}()
	if err := errors.Join(write(f), f.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// isOpened reports whether path is something to open and write to. /dev/stdout is a link that may
// lead to a file, and must remain a link.
func isOpened(path string) bool {
	if at, err := filepath.Abs(path); err == nil && (strings.HasPrefix(at, "/dev/") || strings.HasPrefix(at, "/proc/")) {
		return true
	}
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular()
}
