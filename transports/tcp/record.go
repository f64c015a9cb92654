package tcp

import (
	"context"
	"fmt"

	"github.com/pentrough/pentrough/transports/device"
)

// Record implements device.Recorder.
func (t *transport) Record(ctx context.Context, name string, next bool) (*device.Recording, error) {
	if t.config.Auth != nil && t.config.Identity.Attach > 0 {
		return nil, fmt.Errorf("%w: a recording would have the tokens of attached devices, so the host makes none with auth and identity.attach", device.ErrDevice)
	}
	name, err := t.registry.Canonical(t.registry.Base(name))
	if err != nil {
		return nil, err
	}
	r := t.recorders.Wait(ctx, name, next)
	if !next {
		t.identifyRecorded(name)
	}
	return r, nil
}

// identifyRecorded lets the recordings that wait for a device begin if the device is online. The
// recordings of an attached device get the whole connection.
func (t *transport) identifyRecorded(name string) {
	if !t.recorders.IsAnyWaiting() {
		return
	}
	if session := t.registry.SessionOf(name); session != nil {
		t.recorders.Identify(&session.Conn().(*conn).recordable, session)
	}
}
