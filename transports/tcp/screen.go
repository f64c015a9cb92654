package tcp

import (
	"errors"
	"fmt"

	"github.com/pentrough/pentrough/transports/device"
)

// screen decides which devices may connect with allow = "known".
type screen struct {
	inventory device.Inventory
	changed   chan struct{}
}

// notListed is the detail of the event when a device was removed from the inventory.
const notListed = "the inventory no longer lists the device"

var errNoInventory = errors.New("there is no inventory of devices")

func errUnknownDevice(name string) error {
	return fmt.Errorf("the inventory has no device %q", name)
}

// inventoryUser returns the setting that needs an inventory, or "".
func (c *Config) inventoryUser() string {
	if c.Allow == allowKnown {
		return fmt.Sprintf("allow = %q", c.Allow)
	}
	if c.Auth.needsInventory() {
		return fmt.Sprintf("auth.by = %q", c.Auth.By)
	}
	return ""
}

// Screen implements device.Screener.
func (t *transport) Screen(known device.Inventory) {
	t.known = known
	t.registry.SetListed(known.Known, t.config.Allow == allowKnown)
	if t.config.Auth.needsInventory() {
		t.registry.SetUnattachable(t.hasOwnToken)
	}
	if t.config.Allow != allowKnown {
		return
	}
	t.screen = &screen{inventory: known, changed: make(chan struct{}, 1)}
	known.Watch(func([]string) {
		select {
		case t.screen.changed <- struct{}{}:
		default:
		}
	})
}

// isAllowed reports whether the device may have a session.
func (t *transport) isAllowed(name string) bool {
	return t.screen == nil || t.screen.inventory.Known(name)
}

// kickUnknown ends the sessions of devices that are removed from the inventory. It may miss a
// session that begins at the same time. So the inventory is looked at again after each session has
// begun.
func (t *transport) kickUnknown() {
	for {
		select {
		case <-t.screen.changed:
		case <-t.ctx.Done():
			return
		}
		for _, s := range t.registry.Sessions() {
			if !t.isAllowed(s.Device()) {
				s.Kick(notListed)
			}
		}
	}
}
