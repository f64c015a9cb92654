package deliver

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// placing is a command's way into the order of its device.
type placing struct {
	*deliver
	*order
	options device.EnqueueOptions
	journal handlers.Journal
	once    bool
	hold    bool
	begun   bool
}

// place gives the command its place in the order of the device's session, behind all that is held for the device. Without a write it is
// held, or has ended, or it is an error.
//
// A session is looked for before what is held, and the place is asked for in that session alone: commands may be going to be held because an
// earlier one ended, and those are told before there can be a newer one.
func (p *placing) place(ctx context.Context) (device.Write, []*message.Message, error) {
	d, o := p.deliver, p.order
	ended := func(out []*message.Message, err error) (device.Write, []*message.Message, error) {
		return nil, out, err
	}
	for {
		epoch := d.devices.Epoch(o.key)
		before, err := handlers.HeldBefore(ctx, o.key)
		switch {
		case !o.expires.IsZero() && !d.env.Now().Before(o.expires):
			return ended(d.result(o, device.StateExpired, "its time was over before it was its turn", 0), nil)
		case err != nil:
			return ended(nil, p.undone(fmt.Errorf("placing a command for device %s: %w", o.key, err)))
		case epoch == 0 && d.stranger(o):
			return ended(d.unlisted(o), nil)
		case epoch == 0 && p.hold:
			return ended(d.held(ctx, o, p.journal, away))
		case epoch == 0:
			return ended(d.result(o, device.StateOffline, device.ErrOffline.Error(), 0), nil)
		case before != nil && (p.hold || handlers.Resumed(ctx) != nil):
			return ended(d.held(ctx, o, p.journal, behind))
		case before != nil:
			if err := d.passed(ctx, o, before); err != nil {
				return ended(nil, p.undone(fmt.Errorf("waiting for what is held for device %s: %w", o.key, err)))
			}
			continue
		}
		if err := p.begin(); err != nil {
			return nil, nil, err
		}
		p.options.Epoch = epoch
		write, err := d.enqueue(ctx, o, p.options)
		switch {
		case err == nil:
			return write, nil, nil
		case errors.Is(err, device.ErrSession):
			// Look again.
		case errors.Is(err, device.ErrOffline) && d.stranger(o):
			return ended(d.unlisted(o), nil)
		case errors.Is(err, device.ErrOffline) && p.hold:
			return ended(d.held(ctx, o, p.journal, away))
		case errors.Is(err, device.ErrOffline):
			return ended(d.result(o, device.StateOffline, err.Error(), 0), nil)
		case errors.Is(err, device.ErrBusy) && handlers.Resumed(ctx) != nil:
			return ended(d.held(ctx, o, p.journal, ""))
		case errors.Is(err, device.ErrBusy):
			return ended(d.result(o, device.StateBusy, err.Error(), 0), nil)
		case errors.Is(err, device.ErrPayload), errors.Is(err, device.ErrDevice):
			return ended(d.result(o, device.StateRejected, err.Error(), 0), nil)
		default:
			return ended(nil, p.undone(fmt.Errorf("queueing a command for device %s: %w", o.key, err)))
		}
	}
}

// begin records that the command may be written from now on.
func (p *placing) begin() error {
	if p.begun || p.journal == nil {
		return nil
	}
	if err := p.journal.Begin(p.once); err != nil {
		return err
	}
	p.begun = true
	return nil
}

// undone takes that back: not a byte was written.
func (p *placing) undone(err error) error {
	if p.begun {
		p.journal.Retract()
	}
	return err
}
