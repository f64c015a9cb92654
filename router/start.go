package router

import (
	"context"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// startRuns starts all runs that may start, and sends their messages to Watermill. It is called
// after every change that may let a run start. The caller has the lock.
func (in *intake) startRuns() {
	for {
		in.wantsMore.Store(true) // first, since Watermill may take a message right after the check
		if len(in.out) == cap(in.out) {
			break // startMore continues
		}
		in.wantsMore.Store(false)
		e := in.startNext()
		if e == nil {
			break
		}
		e.run = newRun(in, e)
		in.active[e] = struct{}{}
		in.watchDelivery(e)
		in.out <- e.run.newMessage()
	}
	for _, e := range in.lanes.dropped {
		in.rejectEntry(e, transports.ErrNotStarted)
	}
	in.lanes.dropped = nil
}

// startMore calls startRuns if that stopped because out was full. It is called when Watermill has
// taken a message.
func (in *intake) startMore() {
	if in.wantsMore.Load() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.startRuns()
	}
}

// startNext starts the next entry and returns it, or nil if none may start. During a pause the
// entry becomes the probe. The caller has the lock.
func (in *intake) startNext() *entry {
	if in.stopping || in.givingBack || in.life.Err() != nil {
		return nil
	}
	// A refusal needs nothing that may be down. So it starts during a pause, too, and isn't a
	// probe.
	if e := in.lanes.startRefusal(); e != nil || !in.pause.mayStart() {
		return e
	}
	e := in.lanes.startNext(time.Now())
	if e != nil && in.pause.isOn() {
		in.pause.probe = e
	}
	return e
}

// watch waits for the end of a context that deliveries share. Then their runs are cancelled.
type watch struct {
	runs int // how many runs have a delivery with this context
	stop func() bool
}

// watchDelivery makes sure that the run of an entry is cancelled if its delivery becomes void (see
// cancelVoid). The caller has the lock.
func (in *intake) watchDelivery(e *entry) {
	ctx := e.delivery.Context
	w := in.watches[ctx.Done()]
	if w == nil {
		w = &watch{stop: context.AfterFunc(ctx, func() { in.cancelVoid(ctx) })}
		in.watches[ctx.Done()] = w
	}
	w.runs++
}

// unwatchDelivery undoes watchDelivery. The caller has the lock.
func (in *intake) unwatchDelivery(e *entry) {
	done := e.delivery.Context.Done()
	w := in.watches[done]
	if w.runs--; w.runs == 0 {
		w.stop()
		delete(in.watches, done)
	}
}

// cancelVoid cancels the runs whose delivery became void with ctx. It doesn't cancel kept runs. It
// also doesn't cancel runs that publish their outputs, since a redelivered message can take them
// over. But if the source's callers can't wait, nothing is redelivered, and cancelVoid cancels the
// runs that publish, too.
func (in *intake) cancelVoid(ctx context.Context) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for e := range in.active {
		if e.delivery.Context.Done() == ctx.Done() && !e.keptRun && (!e.publishing || in.source.Impatient) {
			e.run.cancel(context.Cause(ctx))
		}
	}
}

// cancelRuns cancels all runs when the pipeline's life has ended.
func (in *intake) cancelRuns() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for e := range in.active {
		e.run.cancel(context.Cause(in.life))
	}
}
