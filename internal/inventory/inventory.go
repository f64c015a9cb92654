// Package inventory keeps the list of known devices. It reads the list from a file and reads it
// again when the file changes. Each transport gets a view of the list, with the names that the
// transport uses for its devices.
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

// Interval is the time between two checks of the file. A changed file is loaded when two checks in
// a row find it unchanged. So a file isn't loaded while another program writes it.
const Interval = 2 * time.Second

// List has the devices of a file with their labels.
type List map[string]map[string]string

// File is an inventory in a file. It is safe for concurrent use.
type File struct {
	path string
	read func(path string) (List, error)
	log  *slog.Logger

	mu     sync.Mutex // guards the fields below, and is locked while a new list is loaded
	list   List
	views  []*view
	state  state  // when the file was loaded last, with or without an error
	seen   state  // at the last check
	logged string // the error that was logged last

	stop    chan struct{}
	running sync.WaitGroup
}

// state identifies a version of a file.
type state struct {
	info os.FileInfo // nil if os.Stat failed with err
	err  string
}

func statFile(path string) state {
	info, err := os.Stat(path)
	if err != nil {
		return state{err: err.Error()}
	}
	return state{info: info}
}

func (s state) equal(o state) bool {
	if s.info == nil || o.info == nil {
		return s.info == nil && o.info == nil && s.err == o.err
	}
	return os.SameFile(s.info, o.info) && s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime())
}

// Open loads the file at path. It calls read, as does each later load.
func Open(path string, read func(path string) (List, error), log *slog.Logger) (*File, error) {
	f := &File{path: path, read: read, log: log, stop: make(chan struct{})}
	f.state = statFile(path)
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

// View returns the inventory of a transport. canonical returns the transport's name for a device
// of the file, or an error if the transport can't have such a device. The view leaves such devices
// out. Two names of one device are an error.
func (f *File) View(transport string, canonical func(device string) (string, error)) (device.Inventory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &view{transport: transport, canonical: canonical}
	l, err := v.newList(f.list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path, err)
	}
	f.logSkipped(v, l)
	v.now.Store(l)
	f.views = append(f.views, v)
	return v, nil
}

// logSkipped logs how many devices of the file the transport can't have.
func (f *File) logSkipped(v *view, l *list) {
	if l.skipped > 0 {
		f.log.Info("the inventory lists devices that this transport can't have", "transport", v.transport, "devices", l.skipped, "such_as", l.example)
	}
}

// Start starts checking the file for changes, until Close.
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

// Close stops checking the file. It is called once, after Start.
func (f *File) Close() {
	close(f.stop)
	f.running.Wait()
}

// Look checks the file, as the host does each Interval, and loads a new version. If that fails,
// Look logs the error once, and the version before stays.
func (f *File) Look() {
	f.mu.Lock()
	now := statFile(f.path)
	unchanged := now.equal(f.seen)
	f.seen = now
	if !unchanged || now.equal(f.state) {
		f.mu.Unlock()
		return
	}
	f.state = now
	before := len(f.list)
	gone, err := f.reload()
	if err != nil {
		if err.Error() != f.logged {
			f.log.Error("reading the inventory again; the list from before stays", "file", f.path, "devices", before, "err", err)
		}
		f.logged = err.Error()
		f.mu.Unlock()
		return
	}
	f.logged = ""
	f.log.Info("the inventory has changed", "file", f.path, "devices", len(f.list), "before", before)
	f.mu.Unlock()
	for v, names := range gone {
		v.notifyWatchers(names)
	}
}

// reload reads the file and updates all views, or none. It returns the devices that each view has
// lost.
func (f *File) reload() (map[*view][]string, error) {
	next, err := f.read(f.path)
	if err != nil {
		return nil, err
	}
	lists := make([]*list, len(f.views))
	var errs []error
	for i, v := range f.views {
		if lists[i], err = v.newList(next); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	gone := map[*view][]string{}
	for i, v := range f.views {
		f.logSkipped(v, lists[i])
		gone[v] = v.now.Swap(lists[i]).missingFrom(lists[i])
	}
	f.list = next
	return gone, nil
}
