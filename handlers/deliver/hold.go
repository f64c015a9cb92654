package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// HoldLimits are the limits of held commands.
type HoldLimits struct {
	PerDevice int `toml:"per_device" doc:"The most held commands of one device. A further command ends as busy." unit:"commands" min:"1"`
	Total     int `toml:"total" doc:"The most held commands of all devices together. A further command ends as busy." unit:"commands" min:"1"`
}

// The details of the state held.
const (
	whyOffline    = "the device is offline"
	whyBehindHeld = "older commands are held for the device"
)

// Ready reports whether a held command of the device can go on. If the device has a session, the
// command can be written. If the inventory doesn't list the device, the command can end. It
// implements handlers.Holder.
func (d *deliver) Ready(name string) bool { return d.devices.Epoch(name) != 0 || d.isUnlisted(name) }

// Watch calls resume for each device that becomes ready. It implements handlers.Holder.
func (d *deliver) Watch(resume func(name string)) {
	d.devices.Watch(resume)
	d.watchInventory(resume)
}

// holdCommand stores a command in the ledger until its device connects, and returns the result
// held, or busy if the limit is reached. A command that was held before isn't counted against the
// limits again, and has no further result.
func (d *deliver) holdCommand(ctx context.Context, o *order, journal handlers.Journal, why string) ([]*message.Message, error) {
	if handlers.Resumed(ctx) != nil {
		return nil, journal.Hold(handlers.Holding{}, nil)
	}
	held := d.resultMessage(o, device.Result{State: device.StateHeld, Detail: why})
	err := journal.Hold(handlers.Holding{
		Awaits: o.key, Expires: o.expires, Sets: o.Supersede, PerKey: d.limits.PerDevice, Total: d.limits.Total,
	}, held)
	switch {
	case errors.Is(err, handlers.ErrHoldFull):
		return d.newResult(o, device.StateBusy, why+", and "+err.Error(), 0), nil
	case err != nil:
		return nil, err
	}
	d.results.WithLabelValues(string(device.StateHeld)).Inc()
	return held, nil
}

// awaitHeldBefore waits until before is closed or the command expires. before is closed when the
// held commands before this one may have changed.
func (d *deliver) awaitHeldBefore(ctx context.Context, o *order, before <-chan struct{}) error {
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
