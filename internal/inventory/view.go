package inventory

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pentrough/pentrough/transports/device"
)

// view is the inventory of one transport.
type view struct {
	transport string
	canonical func(string) (string, error)
	now       atomic.Pointer[list]

	mu       sync.Mutex
	watchers []func(gone []string)
}

var _ device.Inventory = (*view)(nil)

// list is one version of a view. It is immutable.
type list struct {
	devices map[string]device.Listed
	names   []string // sorted
	// skipped is how many devices the transport can't have. example is one of them.
	skipped int
	example string
}

// newList makes a version of the view.
func (v *view) newList(all List) (*list, error) {
	l := &list{devices: make(map[string]device.Listed, len(all))}
	written := map[string]string{} // from a canonical name to the name in the file
	for _, name := range slices.Sorted(maps.Keys(all)) {
		canonical, err := v.canonical(name)
		if err != nil {
			l.skipped++
			l.example = name
			continue
		}
		if _, twice := l.devices[canonical]; twice {
			other := canonical
			if w, ok := written[canonical]; ok {
				other = w
			}
			return nil, fmt.Errorf("%q and %q are one device of transport %s", other, name, v.transport)
		}
		if canonical != name {
			written[canonical] = name
		}
		l.devices[canonical] = all[name]
	}
	l.names = slices.Sorted(maps.Keys(l.devices))
	return l, nil
}

// missingFrom returns the devices that l has and other hasn't.
func (l *list) missingFrom(other *list) []string {
	var gone []string
	for _, name := range l.names {
		if _, ok := other.devices[name]; !ok {
			gone = append(gone, name)
		}
	}
	return gone
}

// Known implements device.Inventory.
func (v *view) Known(name string) bool {
	_, ok := v.now.Load().devices[name]
	return ok
}

// Labels implements device.Inventory.
func (v *view) Labels(name string) map[string]string {
	return v.now.Load().devices[name].Labels
}

// Tokens implements device.Inventory.
func (v *view) Tokens(name string) []device.TokenHash { return v.now.Load().devices[name].Tokens }

// Select implements device.Inventory.
func (v *view) Select(labels map[string]string) []string {
	l := v.now.Load()
	var names []string
	for _, name := range l.names {
		if has := l.devices[name].Labels; hasLabels(has, labels) {
			names = append(names, name)
		}
	}
	return names
}

// hasLabels reports whether has includes all wanted labels.
func hasLabels(has, wanted map[string]string) bool {
	for key, value := range wanted {
		if got, ok := has[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// Watch implements device.Inventory.
func (v *view) Watch(f func(gone []string)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers = append(v.watchers, f)
}

// notifyWatchers calls all watchers with the devices that the view has lost.
func (v *view) notifyWatchers(gone []string) {
	v.mu.Lock()
	watchers := slices.Clone(v.watchers)
	v.mu.Unlock()
	for _, f := range watchers {
		f(gone)
	}
}
