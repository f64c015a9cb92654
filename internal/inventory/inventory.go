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
	"sync"
	"time"

	"github.com/pentrough/pentrough/internal/filewatch"
	"github.com/pentrough/pentrough/transports/device"
)

// List has the devices of a file.
type List map[string]device.Listed

// File is an inventory in a file. It is safe for concurrent use.
type File struct {
	path string
	read func(path string) (List, error)
	log  *slog.Logger

	mu     sync.Mutex // guards the fields below, and is locked while a new list is loaded
	list   List
	views  []*view
	watch  *filewatch.Watch
	logged string // the error that was logged last

	stop    chan struct{}
	running sync.WaitGroup
}

// Open loads the file at path. It calls read, as does each later load.
func Open(path string, read func(path string) (List, error), log *slog.Logger) (*File, error) {
	f := &File{path: path, read: read, log: log, watch: filewatch.New(path), stop: make(chan struct{})}
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
		ticker := time.NewTicker(filewatch.Interval)
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

// Look checks the file, as the host does each filewatch.Interval, and loads a new version. If that
// fails, Look logs the error once, and the version before stays.
func (f *File) Look() {
	f.mu.Lock()
	if !f.watch.Changed() {
		f.mu.Unlock()
		return
	}
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
