package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// HoldLimits bound what is held.
type HoldLimits struct {
	PerDevice int `toml:"per_device" doc:"How many commands are held for one device at most; further ones are busy." unit:"commands" min:"1"`
	Total     int `toml:"total" doc:"How many are held for all devices together at most; further ones are busy." unit:"commands" min:"1"`
}

// Why a command is held.
const (
	away   = "the device is away"
	behind = "older commands are held for the device"
)

// Ready implements handlers.Holder.
func (d *deliver) Ready(name string) bool { return d.devices.Epoch(name) != 0 || d.unknown(name) }

// Watch implements handlers.Holder.
func (d *deliver) Watch(resume func(name string)) {
	d.devices.Watch(resume)
	d.watchInventory(resume)
}

// held has the ledger own a command until its device is there.
func (d *deliver) held(ctx context.Context, o *order, journal handlers.Journal, why string) ([]*message.Message, error) {
	if handlers.Resumed(ctx) != nil {
		return nil, journal.Hold(handlers.Holding{}, nil)
	}
	held := d.message(o, device.Result{State: device.StateHeld, Detail: why})
	err := journal.Hold(handlers.Holding{
		Awaits: o.key, Expires: o.expires, Sets: o.Supersede, PerKey: d.limits.PerDevice, Total: d.limits.Total,
	}, held)
	switch {
	case errors.Is(err, handlers.ErrHoldFull):
		return d.result(o, device.StateBusy, why+", and "+err.Error(), 0), nil
	case err != nil:
		return nil, err
	}
	d.results.WithLabelValues(string(device.StateHeld)).Inc()
	return held, nil
}

// passed waits until what stands before a command may have changed, or its time is over.
func (d *deliver) passed(ctx context.Context, o *order, before <-chan struct{}) error {
	var expired <-chan time.Time
	if !o.expires.IsZero() {
		timer := time.NewTimer(o.expires.Sub(d.env.Now()))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-before:
	case <-expired:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
