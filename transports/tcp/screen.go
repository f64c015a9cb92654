package tcp

import (
	"errors"
	"fmt"

	"github.com/pentrough/pentrough/transports/device"
)

// screen is who may connect with allow = "known".
type screen struct {
	inventory device.Inventory
	changed   chan struct{}
}

var errNoInventory = errors.New(`allow = "known" without an inventory of devices`)

func unknownDevice(name string) error {
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

// known reports whether the device may have a session.
func (t *transport) known(name string) bool { return t.screen == nil || t.screen.inventory.Known(name) }

// kickUnknown ends the sessions of devices that leave the inventory. A connection that becomes a session meanwhile looks for itself, after it is
// among those that are looked at here.
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
			if s := c.session.Load(); s != nil && !t.known(s.Device()) {
				strangers = append(strangers, s)
			}
		}
		t.mu.Unlock()
		for _, s := range strangers {
			s.End(device.Kicked)
		}
	}
}
