// Package newfile writes the files that a user names, for example with `-o FILE`.
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

// Write writes a file in one step: it writes a temporary file in the same folder, and renames it
// when it is complete. If path is a link, Write replaces the link and doesn't touch its target.
//
// Write doesn't replace a file in /dev or /proc, such as /dev/stdout, or a device or pipe in
// another folder. It opens such a file and writes to it.
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

// isOpened reports whether Write opens path instead of replacing it. /dev/stdout is a link that
// may lead to a file, and must stay a link.
func isOpened(path string) bool {
	if at, err := filepath.Abs(path); err == nil && (strings.HasPrefix(at, "/dev/") || strings.HasPrefix(at, "/proc/")) {
		return true
	}
	info, err := os.Stat(path)
	return err == nil && !info.Mode().IsRegular()
}
