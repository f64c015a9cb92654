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
	"github.com/pentrough/pentrough/transports/protocol"
)

type deliver struct {
	devices device.Devices
	// inventory lists the devices that exist; nil: there is no inventory.
	inventory device.Inventory
	mode      device.Mode
	format    device.Format
	// priority says that commands may have a priority.
	priority bool
	reply    bool // whether a command without the field reply is a request
	requests *requestMaker
	gap      time.Duration
	offline  device.OfflinePolicy // of a command without the field offline
	limits   HoldLimits
	env      handlers.Env
	results  *prometheus.CounterVec
}

var (
	_ handlers.Describer = (*deliver)(nil)
	_ handlers.Refuser   = (*deliver)(nil)
	_ handlers.Holder    = (*deliver)(nil)
)

// Handle writes the command, waits until its outcome is known, and returns its result.
func (d *deliver) Handle(msg *message.Message) ([]*message.Message, error) {
	ctx := msg.Context()
	o, err := d.orderFor(ctx, msg)
	if err != nil {
		return nil, handlers.Permanent(err)
	}
	if o.foreign != nil {
		return nil, o.foreign
	}
	if o.rejected != "" {
		return d.newResult(o, device.StateRejected, o.rejected, 0), nil
	}
	if err := d.devices.Check(protocol.Command{Device: o.name, ID: o.ID, Payload: o.Payload}); err != nil {
		return d.newResult(o, device.StateRejected, "cmd: "+err.Error(), 0), nil
	}
	options := device.EnqueueOptions{Expires: o.expires, Supersede: o.Supersede, ID: o.ID, Priority: o.Priority, Gap: d.gap}
	if o.Reply.Or(d.reply) {
		if options.Request, err = d.requests.newRequest(&o.Command); err != nil {
			return d.newResult(o, device.StateRejected, err.Error(), 0), nil
		}
	}
	journal := handlers.JournalFrom(ctx)
	once, hold := cmp.Or(o.Mode, d.mode) == device.AtMostOnce, d.offlinePolicy(o) == device.Hold
	switch resumed := handlers.Resumed(ctx); {
	case once && o.given == "":
		return d.newResult(o, device.StateRejected, "mode: at-most-once needs an id", 0), nil
	case once && (journal == nil || !journal.Durable()):
		return d.newResult(o, device.StateRejected, "mode: at-most-once needs dedup in the pipeline, and a store that outlives the process", 0), nil
	case hold && (journal == nil || !journal.Durable()):
		return d.newResult(o, device.StateRejected, "offline: hold needs dedup in the pipeline, and a store that outlives the process", 0), nil
	case once && o.attempt > 1:
		return d.newResult(o, device.StateUnknown, interrupted, 0), nil
	case resumed != nil && resumed.SupersededBy != "":
		return d.newResult(o, device.StateSuperseded, fmt.Sprintf("command %s came for %q", resumed.SupersededBy, o.Supersede), 0), nil
	}
	if hold {
		options.Orphaned = func() { handlers.MayHold(ctx, o.key) }
	}
	p := placement{deliver: d, order: o, options: options, journal: journal, once: once, hold: hold}
	write, out, err := p.placeCommand(ctx)
	if write == nil {
		return out, err
	}
	handlers.Enqueued(ctx)
	waiting := &voidIgnored{Context: ctx}
	defer waiting.stopWaiting()
	switch w := write.Wait(waiting); w.Fate {
	case device.Sent:
		return d.newResult(o, device.StateSent, w.Detail, w.Epoch), nil
	case device.Expired:
		return d.newResult(o, device.StateExpired, w.Detail, w.Epoch), nil
	case device.Offline:
		switch {
		case d.isUnlisted(o.key):
			return d.unknownDeviceResult(o), nil
		case hold:
			return d.holdCommand(ctx, o, journal, w.Detail)
		}
		return d.newResult(o, device.StateOffline, w.Detail, w.Epoch), nil
	case device.Rejected:
		return d.newResult(o, device.StateRejected, "cmd: "+w.Detail, w.Epoch), nil
	case device.Superseded:
		return d.newResult(o, device.StateSuperseded, w.Detail, w.Epoch), nil
	case device.Answered:
		r := device.Result{State: device.StateAnswered, Epoch: w.Epoch}
		r.Reply, r.Encoding = encodeReply(w.Reply)
		return d.countResult(o, r), nil
	case device.NoReply:
		return d.newResult(o, device.StateNoReply, w.Detail, w.Epoch), nil
	case device.Cancelled:
		if journal != nil {
			journal.Retract() // no byte was written
		}
		return nil, fmt.Errorf("waiting to write to device %s: %w", o.name, context.Cause(ctx))
	default:
		return d.newResult(o, device.StateUnknown, w.Detail, w.Epoch), nil
	}
}

// voidIgnored is a context that ends with its parent, unless the parent ends because the delivery
// became void. After that the source redelivers the command. But the command keeps its place in
// the device's order, as the commands behind it keep theirs. When the redelivered message comes,
// dedup has the outcome of this run.
//
// Most commands are written at once. So the context with its goroutine is made only when a caller
// waits. It is for one goroutine.
type voidIgnored struct {
	context.Context
	waiting context.Context // nil until a caller waits
	cancel  context.CancelCauseFunc
	stop    func() bool
}

func (u *voidIgnored) context() context.Context {
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

func (u *voidIgnored) Done() <-chan struct{} { return u.context().Done() }

func (u *voidIgnored) Err() error { return u.context().Err() }

func (u *voidIgnored) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (u *voidIgnored) stopWaiting() {
	if u.waiting != nil {
		u.stop()
		u.cancel(nil)
	}
}

// Refuse returns the result of a command that isn't handled. The state is rejected if another
// command has the same id, unknown if the command had begun and wasn't redelivered, and otherwise
// busy.
func (d *deliver) Refuse(ctx context.Context, msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	if reason == handlers.ReasonAbandoned {
		o := orderFromKept(handlers.Described(ctx))
		if journal := handlers.JournalFrom(ctx); journal != nil {
			o.attempt = journal.Begun()
		}
		return d.newResult(o, device.StateUnknown, string(reason)+"; it isn't known whether the command was written", 0), nil
	}
	o, err := d.orderFor(ctx, msg)
	switch {
	case err != nil:
		return nil, handlers.Permanent(err)
	case o.foreign != nil:
		return nil, o.foreign
	case o.rejected != "":
		return d.newResult(o, device.StateRejected, o.rejected, 0), nil
	case reason == handlers.ReasonIDReused:
		return d.newResult(o, device.StateRejected, string(reason), 0), nil
	default:
		return d.newResult(o, device.StateBusy, string(reason), 0), nil
	}
}

// interrupted is the detail of the state unknown after a crash.
const interrupted = "an earlier attempt was interrupted; it isn't known whether the command was written"

// newResult makes the result that ends a command. If an earlier attempt may have written the
// command, a state that says that nothing was written becomes unknown.
func (d *deliver) newResult(o *order, s device.State, detail string, epoch uint64) []*message.Message {
	switch s {
	case device.StateRejected, device.StateExpired, device.StateBusy, device.StateOffline, device.StateSuperseded, device.StateUnknownDevice:
		if o.attempt > 1 {
			s, detail = device.StateUnknown, fmt.Sprintf("%s; now it is %s: %s", interrupted, s, detail)
		}
	}
	return d.countResult(o, device.Result{State: s, Detail: detail, Epoch: epoch})
}

// countResult counts the result of a command and makes its message.
func (d *deliver) countResult(o *order, r device.Result) []*message.Message {
	d.results.WithLabelValues(string(r.State)).Inc()
	return d.resultMessage(o, r)
}

// resultMessage fills in the fields that all results have, and makes the message.
func (d *deliver) resultMessage(o *order, r device.Result) []*message.Message {
	r.ID, r.Device, r.Group, r.Host, r.Attempt, r.Time = o.ID, cmp.Or(o.name, o.Device), o.Group, d.env.Host, max(o.attempt, 1), d.env.Now().UTC()
	return []*message.Message{r.Message()}
}
