// Package newfile writes the files that a user names, such as `-o FILE`.
package newfile

import (
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
)

// Write puts a file at path in one step: it is written under another name in the same folder, and
// renamed when it is complete. A link at path is replaced; what it points to isn't touched. What isn't a
// file, such as /dev/stdout, is written to as it is.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
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
