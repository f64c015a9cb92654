package router

import (
	"cmp"
	"slices"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// FleetDevice is what the host knows of one device, from its session, from the inventory, and from
// the configuration of a transport that dials it.
type FleetDevice struct {
	// Transport is the name of the device's transport.
	Transport string
	Device    string
	// Dialed is the address at which the host dials the device, or "" if it doesn't.
	Dialed string
	// Live is the device's session, or nil if it is offline.
	Live *device.Live
	// Known says that the device is in the inventory. Labels are its labels there.
	Known  bool
	Labels map[string]string
	// Banned says that an operator has banned the device.
	Banned bool
	// LastError is the last error of the device's connections. Its text is empty if there was
	// none.
	LastError device.Failure
}

// Fleet returns the devices that are online, in the inventory, or dialed by a transport. They are
// sorted by transport and name.
func (h *Host) Fleet() []FleetDevice {
	var fleet []FleetDevice
	for _, t := range h.ordered {
		provider, ok := t.Transport.(device.Provider)
		if !ok {
			continue
		}
		first := len(fleet)
		place := map[string]int{}
		if known := h.inventory[transports.DevicesRef(t.name)]; known != nil {
			for _, name := range known.Select(nil) {
				place[name] = len(fleet)
				fleet = append(fleet, FleetDevice{Transport: t.name, Device: name, Known: true, Labels: known.Labels(name)})
			}
		}
		lister, ok := provider.Devices().(device.Lister)
		if !ok {
			continue
		}
		placeOf := func(name string) int {
			i, listed := place[name]
			if !listed {
				i = len(fleet)
				place[name] = i
				fleet = append(fleet, FleetDevice{Transport: t.name, Device: name})
			}
			return i
		}
		for name, addr := range lister.Dialed() {
			fleet[placeOf(name)].Dialed = addr
		}
		for _, live := range lister.Live() {
			fleet[placeOf(live.Device)].Live = &live
		}
		failures := lister.Failures()
		for i := first; i < len(fleet); i++ {
			fleet[i].LastError = failures[fleet[i].Device]
		}
		if gate, ok := gatekeeperOf(t); ok {
			for _, ban := range gate.Bans() {
				if i, listed := place[ban.Device]; listed {
					fleet[i].Banned = true
				}
			}
		}
	}
	slices.SortFunc(fleet, func(a, b FleetDevice) int {
		return cmp.Or(cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Device, b.Device))
	})
	return fleet
}
