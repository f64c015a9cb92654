package deliver

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// placement gives one command its place in the order of its device.
type placement struct {
	*deliver
	*order
	options device.EnqueueOptions
	journal handlers.Journal
	once    bool // the mode is at-most-once
	hold    bool // the command is held if its device is offline
	begun   bool // the ledger has recorded that the command may have been written
}

// placeCommand queues the command for the device's session, behind all held commands of the
// device. If it returns no write, the command is held, has ended, or failed.
//
// The order of the steps matters: read the epoch of the session, then look for held commands, then
// queue for that epoch only. When a session ends, commands that waited in its queue may be held.
// They are marked with MayHold before the device can have a newer session, so HeldBefore counts
// them. So if the session still exists when the command is queued, HeldBefore has counted all of
// them.
func (p *placement) placeCommand(ctx context.Context) (device.Write, []*message.Message, error) {
	d, o := p.deliver, p.order
	ended := func(out []*message.Message, err error) (device.Write, []*message.Message, error) {
		return nil, out, err
	}
	for {
		epoch := d.devices.Epoch(o.key)
		before, err := handlers.HeldBefore(ctx, o.key)
		switch {
		case !o.expires.IsZero() && !d.env.Now().Before(o.expires):
			return ended(d.newResult(o, device.StateExpired, "it expired before its turn", 0), nil)
		case err != nil:
			return ended(nil, p.retractBegun(fmt.Errorf("placing a command for device %s: %w", o.key, err)))
		case epoch == 0 && d.isUnlisted(o.key):
			return ended(d.unknownDeviceResult(o), nil)
		case epoch == 0 && p.hold:
			return ended(d.holdCommand(ctx, o, p.journal, whyOffline))
		case epoch == 0:
			return ended(d.newResult(o, device.StateOffline, device.ErrOffline.Error(), 0), nil)
		case before != nil && (p.hold || handlers.Resumed(ctx) != nil):
			return ended(d.holdCommand(ctx, o, p.journal, whyBehindHeld))
		case before != nil:
			if err := d.awaitHeldBefore(ctx, o, before); err != nil {
				return ended(nil, p.retractBegun(fmt.Errorf("waiting for held commands of device %s: %w", o.key, err)))
			}
			continue
		}
		if err := p.recordBegun(); err != nil {
			return nil, nil, err
		}
		p.options.Epoch = epoch
		write, err := d.enqueueTraced(ctx, o, p.options)
		switch {
		case err == nil:
			return write, nil, nil
		case errors.Is(err, device.ErrSession):
			// The session that was found has ended: start over.
		case errors.Is(err, device.ErrOffline) && d.isUnlisted(o.key):
			return ended(d.unknownDeviceResult(o), nil)
		case errors.Is(err, device.ErrOffline) && p.hold:
			return ended(d.holdCommand(ctx, o, p.journal, whyOffline))
		case errors.Is(err, device.ErrOffline):
			return ended(d.newResult(o, device.StateOffline, err.Error(), 0), nil)
		case errors.Is(err, device.ErrBusy) && handlers.Resumed(ctx) != nil:
			return ended(d.holdCommand(ctx, o, p.journal, ""))
		case errors.Is(err, device.ErrBusy):
			return ended(d.newResult(o, device.StateBusy, err.Error(), 0), nil)
		case errors.Is(err, device.ErrPayload), errors.Is(err, device.ErrDevice):
			return ended(d.newResult(o, device.StateRejected, err.Error(), 0), nil)
		default:
			return ended(nil, p.retractBegun(fmt.Errorf("queueing a command for device %s: %w", o.key, err)))
		}
	}
}

// recordBegun records in the ledger that the command may be written from now on.
func (p *placement) recordBegun() error {
	if p.begun || p.journal == nil {
		return nil
	}
	if err := p.journal.Begin(p.once); err != nil {
		return err
	}
	p.begun = true
	return nil
}

// retractBegun undoes recordBegun, since no byte was written, and returns err.
func (p *placement) retractBegun(err error) error {
	if p.begun {
		p.journal.Retract()
	}
	return err
}
