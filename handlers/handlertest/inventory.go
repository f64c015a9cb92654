package handlertest

import (
	"maps"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/transports/device"
)

// Inventory is a fake of a list of known devices. It is safe for concurrent use.
type Inventory struct {
	mu       sync.Mutex
	list     map[string]map[string]string
	watchers []func(gone []string)
}

var _ device.Inventory = (*Inventory)(nil)

// List lists these devices with their labels, and no others, and tells those who watch.
func (i *Inventory) List(devices map[string]map[string]string) {
	i.mu.Lock()
	var gone []string
	for name := range i.list {
		if _, still := devices[name]; !still {
			gone = append(gone, name)
		}
	}
	i.list = maps.Clone(devices)
	watchers := i.watchers
	i.mu.Unlock()
	slices.Sort(gone)
	for _, f := range watchers {
		f(gone)
	}
}

// Known reports whether the device is listed.
func (i *Inventory) Known(name string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, ok := i.list[name]
	return ok
}

// Labels returns a device's labels.
func (i *Inventory) Labels(name string) map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.list[name]
}

// Select returns the devices that have all of these labels.
func (i *Inventory) Select(labels map[string]string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var names []string
	for name, has := range i.list {
		if matches(has, labels) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func matches(has, wanted map[string]string) bool {
	for key, value := range wanted {
		if got, ok := has[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// Watch remembers f for List.
func (i *Inventory) Watch(f func(gone []string)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.watchers = append(i.watchers, f)
}
