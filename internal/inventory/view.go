package inventory

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pentrough/pentrough/transports/device"
)

// view is an inventory as one transport knows it.
type view struct {
	transport string
	canonical func(string) (string, error)
	now       atomic.Pointer[list]

	mu       sync.Mutex
	watchers []func(gone []string)
}

var _ device.Inventory = (*view)(nil)

// list is a version of a view, which doesn't change.
type list struct {
	labels map[string]map[string]string
	names  []string // in order
	// skipped is how many names can't be devices of the transport, example one of them.
	skipped int
	example string
}

// list makes a version of the view.
func (v *view) list(all List) (*list, error) {
	l := &list{labels: make(map[string]map[string]string, len(all))}
	written := map[string]string{} // as the file has them, where that isn't canonical
	for _, name := range slices.Sorted(maps.Keys(all)) {
		canonical, err := v.canonical(name)
		if err != nil {
			l.skipped++
			l.example = name
			continue
		}
		if _, twice := l.labels[canonical]; twice {
			other := canonical
			if w, ok := written[canonical]; ok {
				other = w
			}
			return nil, fmt.Errorf("%q and %q are one device of transport %s", other, name, v.transport)
		}
		if canonical != name {
			written[canonical] = name
		}
		l.labels[canonical] = all[name]
	}
	l.names = slices.Sorted(maps.Keys(l.labels))
	return l, nil
}

// without returns what l has and other hasn't.
func (l *list) without(other *list) []string {
	var gone []string
	for _, name := range l.names {
		if _, ok := other.labels[name]; !ok {
			gone = append(gone, name)
		}
	}
	return gone
}

// Known implements device.Inventory.
func (v *view) Known(name string) bool {
	_, ok := v.now.Load().labels[name]
	return ok
}

// Labels implements device.Inventory.
func (v *view) Labels(name string) map[string]string { return v.now.Load().labels[name] }

// Select implements device.Inventory.
func (v *view) Select(labels map[string]string) []string {
	l := v.now.Load()
	var names []string
	for _, name := range l.names {
		if has := l.labels[name]; all(has, labels) {
			names = append(names, name)
		}
	}
	return names
}

func all(has, wanted map[string]string) bool {
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

func (v *view) tell(gone []string) {
	v.mu.Lock()
	watchers := slices.Clone(v.watchers)
	v.mu.Unlock()
	for _, f := range watchers {
		f(gone)
	}
}
