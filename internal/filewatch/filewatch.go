// Package filewatch notices that files have changed, such as an inventory or a certificate. It
// compares their size and time, because that works on every file system and through links.
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
	loaded []state // at the last reading: when Changed last returned true
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

// Changed reports whether the files should be read again. That is so if a file has changed since
// the last reading and the last two checks found the same state. So files aren't read while
// another program writes them. The loss of a file counts as a change, too.
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
