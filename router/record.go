package router

import (
	"context"

	"github.com/pentrough/pentrough/transports/device"
)

// Record returns a recording of a device's connection, as [device.Recorder] does, and the
// transport of the device. name is the name of the transport. It may be empty if only one has
// devices.
func (h *Host) Record(ctx context.Context, name, deviceName string, next bool) (*device.Recording, Transport, error) {
	chosen, recorder, err := chooseTransport(h, name, "record", func(t *transport) (device.Recorder, bool) {
		r, ok := t.Transport.(device.Recorder)
		return r, ok
	})
	if err != nil {
		return nil, Transport{}, err
	}
	recording, err := recorder.Record(ctx, deviceName, next)
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
