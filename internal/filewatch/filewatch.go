// Package filewatch notices that files have changed, such as an inventory or a certificate. It
// asks for their size and time, because that works on every file system and through links.
//
// Start with [New], and call [Watch.Changed] each [Interval].
package filewatch

import (
	"os"
	"time"
)

// Interval is the time between two checks of a file.
const Interval = 2 * time.Second

// Watch remembers the state of some files. Its methods are called by one goroutine at a time.
type Watch struct {
	paths  []string
	loaded []state // when Changed last returned true
	seen   []state // at the last check
}

// New returns the watch of some files. Read the files after calling New, so that no change is
// missed.
func New(paths ...string) *Watch {
	w := &Watch{paths: paths}
	w.loaded = w.stat()
	w.seen = w.loaded
	return w
}

// Changed reports whether the files should be read again. They are read when a file has changed
// and two checks in a row found all files the same. So files aren't read while another program
// writes them. A file that can't be found has changed, too.
func (w *Watch) Changed() bool {
	now := w.stat()
	quiet := equal(now, w.seen)
	w.seen = now
	if !quiet || equal(now, w.loaded) {
		return false
	}
	w.loaded = now
	return true
}

// state identifies a version of a file.
type state struct {
	info os.FileInfo // nil if os.Stat failed with err
	err  string
}

func (w *Watch) stat() []state {
	all := make([]state, len(w.paths))
	for i, path := range w.paths {
		info, err := os.Stat(path)
		if err != nil {
			all[i].err = err.Error()
			continue
		}
		all[i].info = info
	}
	return all
}

func equal(a, b []state) bool {
	for i := range a {
		if !a[i].equal(b[i]) {
			return false
		}
	}
	return true
}

func (s state) equal(o state) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil && s.err == o.err
	}
	return os.SameFile(s.info, o.info) && s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime())
}
