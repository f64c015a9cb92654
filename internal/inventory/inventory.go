// Package inventory keeps the list of known devices: it reads a file, looks at it again while the host runs, and gives each transport a view of
// it under the names that the transport knows its devices by.
//
// Start with [Open].
package inventory

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// Interval is how often the file is looked at. A change is taken up when the file was the same in two looks, so that one which is being
// written isn't.
const Interval = 2 * time.Second

// List is what a file says: devices with their labels.
type List map[string]map[string]string

// File is an inventory that a file holds. It is safe for concurrent use.
type File struct {
	path string
	read func(path string) (List, error)
	log  *slog.Logger

	mu    sync.Mutex // guards what follows, and is held while a new list is taken up
	list  List
	views []*view
	state state  // of what was read last, rightly or not
	seen  state  // at the last look
	told  string // the trouble that was logged

	stop    chan struct{}
	running sync.WaitGroup
}

// state tells one content of a file from another.
type state struct {
	info os.FileInfo // nil: it can't be looked at
	err  string
}

func look(path string) state {
	info, err := os.Stat(path)
	if err != nil {
		return state{err: err.Error()}
	}
	return state{info: info}
}

func (s state) same(o state) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil && s.err == o.err
	}
	return os.SameFile(s.info, o.info) && s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime())
}

// Open reads the file at path. read is what reads it, then and later.
func Open(path string, read func(path string) (List, error), log *slog.Logger) (*File, error) {
	f := &File{path: path, read: read, log: log, stop: make(chan struct{})}
	f.state = look(path)
	f.seen = f.state
	var err error
	if f.list, err = read(path); err != nil {
		return nil, err
	}
	return f, nil
}

// Devices returns how many devices the file lists.
func (f *File) Devices() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.list)
}

// View returns the inventory of a transport, whose devices have the names that canonical returns. Names that can't be devices of the transport
// aren't in it; two names of one device are an error.
func (f *File) View(transport string, canonical func(device string) (string, error)) (device.Inventory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &view{transport: transport, canonical: canonical}
	l, err := v.list(f.list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	f.skipped(v, l)
	v.now.Store(l)
	f.views = append(f.views, v)
	return v, nil
}

// skipped says of how many names a transport can't make anything.
func (f *File) skipped(v *view, l *list) {
	if l.skipped > 0 {
		f.log.Info("the inventory lists what can't be devices of this transport", "transport", v.transport, "devices", l.skipped, "such_as", l.example)
	}
}

// Start begins to look for changes, until Close.
func (f *File) Start() {
	f.running.Go(func() {
		ticker := time.NewTicker(Interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				f.Look()
			case <-f.stop:
				return
			}
		}
	})
}

// Close ends that. It is called once.
func (f *File) Close() {
	close(f.stop)
	f.running.Wait()
}

// Look looks at the file, as is done each Interval, and takes up what is new in it. A file that can't be read or isn't right is told once, and what was
// read before stays.
func (f *File) Look() {
	f.mu.Lock()
	now := look(f.path)
	rests := now.same(f.seen)
	f.seen = now
	if !rests || now.same(f.state) {
		f.mu.Unlock()
		return
	}
	f.state = now
	before := len(f.list)
	gone, err := f.take()
	if err != nil {
		if err.Error() != f.told {
			f.log.Error("reading the inventory again; the list from before stays", "file", f.path, "devices", before, "err", err)
		}
		f.told = err.Error()
		f.mu.Unlock()
		return
	}
	f.told = ""
	f.log.Info("the inventory has changed", "file", f.path, "devices", len(f.list), "before", before)
	f.mu.Unlock()
	for v, names := range gone {
		v.tell(names)
	}
}

// take reads the file and changes all views, or none. It returns what is gone from each.
func (f *File) take() (map[*view][]string, error) {
	next, err := f.read(f.path)
	if err != nil {
		return nil, err
	}
	lists := make([]*list, len(f.views))
	var errs []error
	for i, v := range f.views {
		if lists[i], err = v.list(next); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	gone := map[*view][]string{}
	for i, v := range f.views {
		f.skipped(v, lists[i])
		gone[v] = v.now.Swap(lists[i]).without(lists[i])
	}
	f.list = next
	return gone, nil
}
