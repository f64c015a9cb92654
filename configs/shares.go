package configs

import (
	"maps"
	"slices"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
)

// shares divides the file descriptors of the process among the transports that listen or dial. It
// warns about those that get fewer than configured.
func (b *builder) shares(f *file, openFiles int) {
	if openFiles == 0 {
		return
	}
	var names []string
	var wants []int
	for _, name := range slices.Sorted(maps.Keys(f.transports)) {
		if needs := transports.NeedsOf(f.transports[name].config); len(needs.Binds) > 0 || needs.Connections > 0 {
			names, wants = append(names, name), append(wants, needs.Connections)
		}
	}
	for i, share := range listen.Shares(openFiles, wants) {
		t := f.transports[names[i]]
		t.connections = share
		f.transports[names[i]] = t
		if share < wants[i] {
			b.warn(plugin.Join("transport", names[i])+".max_connections",
				"only %d of %d connections are possible: this process may open %d files, the host itself needs %d of them, and the transports share the rest; %s",
				share, wants[i], openFiles, listen.Reserve(openFiles), listen.RaiseLimit)
		}
	}
}
