package tcp

import (
	"context"

	"github.com/pentrough/pentrough/transports/device"
)

// Record implements device.Recorder.
func (t *transport) Record(ctx context.Context, name string, next bool) (*device.Recording, error) {
	name, err := t.registry.Canonical(t.registry.Base(name))
	if err != nil {
		return nil, err
	}
	r := t.recorders.Wait(ctx, name, next)
	if !next {
		for c, session := range t.connsOf(name) {
			if session.Reason() == "" {
				t.recorders.Identify(&c.recordable, session)
			}
		}
	}
	return r, nil
}

// connsOf returns the connections of a device, with their sessions. All but one have ended.
func (t *transport) connsOf(name string) map[*conn]*device.Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	conns := map[*conn]*device.Session{}
	for c := range t.conns {
		if s := c.session.Load(); s != nil && s.Device() == name {
			conns[c] = s
		}
	}
	return conns
}
