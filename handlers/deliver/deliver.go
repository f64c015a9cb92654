// Package deliver is the handler that writes commands to devices and produces their results.
package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

type deliver struct {
	devices device.Devices
	// inventory lists the known devices; nil: there is no list.
	inventory device.Inventory
	mode      device.Mode
	format    device.Format
	// priority says that commands may have one.
	priority bool
	asks     bool // commands that don't say
	asker    *asker
	gap      time.Duration
	offline  device.OfflinePolicy // of commands that don't say
	limits   HoldLimits
	env      handlers.Env
	results  *prometheus.CounterVec
}

var (
	_ handlers.Describer = (*deliver)(nil)
	_ handlers.Refuser   = (*deliver)(nil)
	_ handlers.Holder    = (*deliver)(nil)
)

// Handle writes the command and waits until its fate is known.
func (d *deliver) Handle(msg *message.Message) ([]*message.Message, error) {
	ctx := msg.Context()
	o, err := d.described(ctx, msg)
	if err != nil {
		return nil, handlers.Permanent(err)
	}
	if o.foreign != nil {
		return nil, o.foreign
	}
	if o.rejected != "" {
		return d.result(o, device.StateRejected, o.rejected, 0), nil
	}
	if err := d.devices.Check(o.Payload); err != nil {
		return d.result(o, device.StateRejected, "cmd: "+err.Error(), 0), nil
	}
	options := device.EnqueueOptions{Expires: o.expires, Supersede: o.Supersede, ID: o.ID, Priority: o.Priority, Gap: d.gap}
	if o.Reply.Or(d.asks) {
		if options.Request, err = d.asker.question(&o.Command); err != nil {
			return d.result(o, device.StateRejected, err.Error(), 0), nil
		}
	}
	journal := handlers.JournalFrom(ctx)
	once, hold := cmp.Or(o.Mode, d.mode) == device.AtMostOnce, d.policy(o) == device.Hold
	switch resumed := handlers.Resumed(ctx); {
	case once && o.given == "":
		return d.result(o, device.StateRejected, "mode: at-most-once needs an id", 0), nil
	case once && (journal == nil || !journal.Durable()):
		return d.result(o, device.StateRejected, "mode: at-most-once needs dedup in the pipeline, and a store that outlives the process", 0), nil
	case hold && (journal == nil || !journal.Durable()):
		return d.result(o, device.StateRejected, "offline: hold needs dedup in the pipeline, and a store that outlives the process", 0), nil
	case once && o.attempt > 1:
		return d.result(o, device.StateUnknown, cutOff, 0), nil
	case resumed != nil && resumed.SupersededBy != "":
		return d.result(o, device.StateSuperseded, fmt.Sprintf("command %s came for %q", resumed.SupersededBy, o.Supersede), 0), nil
	}
	if hold {
		options.Orphaned = func() { handlers.MayHold(ctx, o.key) }
	}
	p := placing{deliver: d, order: o, options: options, journal: journal, once: once, hold: hold}
	write, out, err := p.place(ctx)
	if write == nil {
		return out, err
	}
	handlers.Enqueued(ctx)
	waiting := &unlessVoid{Context: ctx}
	defer waiting.end()
	switch w := write.Wait(waiting); w.Fate {
	case device.Sent:
		return d.result(o, device.StateSent, w.Detail, w.Epoch), nil
	case device.Expired:
		return d.result(o, device.StateExpired, w.Detail, w.Epoch), nil
	case device.Offline:
		switch {
		case d.stranger(o):
			return d.unlisted(o), nil
		case hold:
			return d.held(ctx, o, journal, w.Detail)
		}
		return d.result(o, device.StateOffline, w.Detail, w.Epoch), nil
	case device.Superseded:
		return d.result(o, device.StateSuperseded, w.Detail, w.Epoch), nil
	case device.Answered:
		r := device.Result{State: device.StateAnswered, Epoch: w.Epoch}
		r.Reply, r.Encoding = encoded(w.Reply)
		return d.ended(o, r), nil
	case device.NoReply:
		return d.result(o, device.StateNoReply, w.Detail, w.Epoch), nil
	case device.Cancelled:
		if journal != nil {
			journal.Retract() // not a byte was written
		}
		return nil, fmt.Errorf("waiting to write to device %s: %w", o.key, context.Cause(ctx))
	default:
		return d.result(o, device.StateUnknown, w.Detail, w.Epoch), nil
	}
}

// unlessVoid ends with its context, unless the delivery became void: a command that has its place in the device's order keeps it then, because
// the ones behind it keep theirs. What it comes to is in dedup's record when the delivery's copy comes. Most commands are written at once, so
// it costs nothing until somebody waits. It is for one goroutine.
type unlessVoid struct {
	context.Context
	waiting context.Context // what is waited for; nil until somebody waits
	cancel  context.CancelCauseFunc
	stop    func() bool
}

func (u *unlessVoid) wait() context.Context {
	if u.waiting == nil {
		waiting, cancel := context.WithCancelCause(context.WithoutCancel(u.Context))
		u.waiting, u.cancel = waiting, cancel
		u.stop = context.AfterFunc(u.Context, func() {
			if cause := context.Cause(u.Context); !errors.Is(cause, transports.ErrVoid) {
				cancel(cause)
			}
		})
	}
	return u.waiting
}

func (u *unlessVoid) Done() <-chan struct{} { return u.wait().Done() }

func (u *unlessVoid) Err() error { return u.wait().Err() }

func (u *unlessVoid) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (u *unlessVoid) end() {
	if u.waiting != nil {
		u.stop()
		u.cancel(nil)
	}
}

// Refuse answers for a command that isn't handled. It is rejected if its id is another command's,
// unknown if it had begun and wasn't redelivered, and otherwise busy.
func (d *deliver) Refuse(ctx context.Context, msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	if reason == handlers.ReasonAbandoned {
		o := keptOrder(handlers.Described(ctx))
		if journal := handlers.JournalFrom(ctx); journal != nil {
			o.attempt = journal.Begun()
		}
		return d.result(o, device.StateUnknown, string(reason)+"; it isn't known whether it was written", 0), nil
	}
	o, err := d.described(ctx, msg)
	switch {
	case err != nil:
		return nil, handlers.Permanent(err)
	case o.foreign != nil:
		return nil, o.foreign
	case o.rejected != "":
		return d.result(o, device.StateRejected, o.rejected, 0), nil
	case reason == handlers.ReasonIDReused:
		return d.result(o, device.StateRejected, string(reason), 0), nil
	default:
		return d.result(o, device.StateBusy, string(reason), 0), nil
	}
}

// cutOff is the detail of what can't be known.
const cutOff = "an earlier attempt was cut off; it isn't known whether it was written"

// result makes the one result of a command. That this attempt wrote nothing doesn't say that an earlier one didn't.
func (d *deliver) result(o *order, s device.State, detail string, epoch uint64) []*message.Message {
	switch s {
	case device.StateRejected, device.StateExpired, device.StateBusy, device.StateOffline, device.StateSuperseded, device.StateUnknownDevice:
		if o.attempt > 1 {
			s, detail = device.StateUnknown, fmt.Sprintf("%s; now it is %s: %s", cutOff, s, detail)
		}
	}
	return d.ended(o, device.Result{State: s, Detail: detail, Epoch: epoch})
}

// ended completes the result of a command.
func (d *deliver) ended(o *order, r device.Result) []*message.Message {
	d.results.WithLabelValues(string(r.State)).Inc()
	return d.message(o, r)
}

// message is a result as a message.
func (d *deliver) message(o *order, r device.Result) []*message.Message {
	r.ID, r.Device, r.Group, r.Host, r.Attempt, r.Time = o.ID, cmp.Or(o.key, o.Device), o.Group, d.env.Host, max(o.attempt, 1), d.env.Now().UTC()
	return []*message.Message{r.Message()}
}
