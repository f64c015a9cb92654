package deliver

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// inventoryOf returns the inventory of a transport's devices, nil if the host has none.
func inventoryOf(env handlers.Env, ref handlers.DevicesRef) device.Inventory {
	if env.Inventory == nil {
		return nil
	}
	return env.Inventory(ref)
}

// unknown reports whether there is an inventory without this device.
func (d *deliver) unknown(name string) bool { return d.inventory != nil && !d.inventory.Known(name) }

// stranger reports that of a command's device. It is asked when the device has no connection: one that has is there, whatever the list says.
func (d *deliver) stranger(o *order) bool { return d.unknown(o.key) }

// unlisted is the result for a device that isn't in the inventory.
func (d *deliver) unlisted(o *order) []*message.Message {
	return d.result(o, device.StateUnknownDevice, "the inventory has no such device", 0)
}

// watchInventory has what is held for devices that leave the inventory come back, to end.
func (d *deliver) watchInventory(resume func(name string)) {
	if d.inventory == nil {
		return
	}
	d.inventory.Watch(func(gone []string) {
		for _, name := range gone {
			resume(name)
		}
	})
}
