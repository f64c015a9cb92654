package handlertest

import (
	"maps"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/transports/device"
)

// Inventory is a fake of an inventory. It is safe for concurrent use.
type Inventory struct {
	mu       sync.Mutex
	list     map[string]map[string]string
	watchers []func(removed []string)
}

var _ device.Inventory = (*Inventory)(nil)

// List replaces the list by devices with their labels, and calls the watchers with the removed
// names.
func (i *Inventory) List(devices map[string]map[string]string) {
	i.mu.Lock()
	var removed []string
	for name := range i.list {
		if _, still := devices[name]; !still {
			removed = append(removed, name)
		}
	}
	i.list = maps.Clone(devices)
	watchers := i.watchers
	i.mu.Unlock()
	slices.Sort(removed)
	for _, f := range watchers {
		f(removed)
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

// Tokens returns nil: the devices of the fake have no tokens.
func (i *Inventory) Tokens(string) []device.TokenHash { return nil }

// Select returns the devices that have all given labels.
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

// Watch stores f for List.
func (i *Inventory) Watch(f func(removed []string)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.watchers = append(i.watchers, f)
}
