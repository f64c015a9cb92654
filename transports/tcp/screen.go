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

var errNoInventory = errors.New(`allow = "known" needs an inventory of devices`)

func errUnknownDevice(name string) error {
	return fmt.Errorf("the inventory has no device %q", name)
}

// inventoryUser returns the setting that needs an inventory, or "".
func (c *Config) inventoryUser() string {
	if c.Allow == allowKnown {
		return fmt.Sprintf("allow = %q", c.Allow)
	}
	return ""
}

// Screen implements device.Screener.
func (t *transport) Screen(known device.Inventory) {
	t.registry.SetListed(known.Known)
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
// connection that becomes a session at the same time. That connection looks at the inventory
// itself, after it is in t.conns.
func (t *transport) kickUnknown() {
	for {
		select {
		case <-t.screen.changed:
		case <-t.ctx.Done():
			return
		}
		t.mu.Lock()
		var strangers []*device.Session
		for c := range t.conns {
			if s := c.session.Load(); s != nil && !t.isAllowed(s.Device()) {
				strangers = append(strangers, s)
			}
		}
		t.mu.Unlock()
		for _, s := range strangers {
			s.End(device.Kicked)
		}
	}
}
