package deliver

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// inventoryOf returns the inventory of a transport's devices, or nil if the host has no inventory.
func inventoryOf(env handlers.Env, ref handlers.DevicesRef) device.Inventory {
	if env.Inventory == nil {
		return nil
	}
	return env.Inventory(ref)
}

// isUnlisted reports whether there is an inventory, and it doesn't list this device.
func (d *deliver) isUnlisted(name string) bool { return d.inventory != nil && !d.inventory.Known(name) }

// unknownDeviceResult makes the result for a device that the inventory doesn't list. It is for
// devices without a connection: a connected device gets its commands, even if it isn't listed.
func (d *deliver) unknownDeviceResult(o *order) []*message.Message {
	return d.newResult(o, device.StateUnknownDevice, "the inventory doesn't list the device", 0)
}

// watchInventory calls resume for each device that leaves the inventory, so that its held commands
// end.
func (d *deliver) watchInventory(resume func(name string)) {
	if d.inventory == nil {
		return
	}
	d.inventory.Watch(func(removed []string) {
		for _, name := range removed {
			resume(name)
		}
	})
}
