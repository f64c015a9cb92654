package router

import (
	"fmt"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// takeInventory gives each transport with devices its view of the inventory, if there is one.
func (h *Host) takeInventory(withDevices []*transport) []error {
	if h.config.Inventory == nil {
		return nil
	}
	h.inventory = map[transports.DevicesRef]device.Inventory{}
	var errs []error
	for _, t := range withDevices {
		known, err := h.config.Inventory.View(t.name, t.Transport.(device.Provider).Devices().Canonical)
		if err != nil {
			errs = append(errs, fmt.Errorf("taking the inventory of transport %s: %w", t.name, err))
			continue
		}
		h.inventory[transports.DevicesRef(t.name)] = known
		if s, ok := t.Transport.(device.Screener); ok {
			s.Screen(known)
		}
	}
	return errs
}
