package router

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pentrough/pentrough/transports/device"
)

// Record returns a recording of a device's connection, as [device.Recorder] does, and the
// transport of the device. name is the name of the transport. It may be empty if only one has
// devices.
func (h *Host) Record(ctx context.Context, name, deviceName string, next bool) (*device.Recording, Transport, error) {
	var names []string
	var chosen *transport
	for _, t := range h.ordered {
		if _, ok := t.Transport.(device.Recorder); ok {
			names = append(names, t.name)
			if name == "" || name == t.name {
				chosen = t
			}
		}
	}
	switch {
	case len(names) == 0:
		return nil, Transport{}, errors.New("no transport of the host can record its devices")
	case chosen == nil:
		return nil, Transport{}, fmt.Errorf("no transport with devices is named %q; there are: %s", name, strings.Join(names, ", "))
	case name == "" && len(names) > 1:
		return nil, Transport{}, fmt.Errorf("several transports have devices; name one of %s", strings.Join(names, ", "))
	}
	recording, err := chosen.Transport.(device.Recorder).Record(ctx, deviceName, next)
	if err != nil {
		return nil, Transport{}, err
	}
	for _, t := range h.config.Transports {
		if t.Name == chosen.name {
			return recording, t, nil
		}
	}
	return recording, Transport{Name: chosen.name}, nil
}
