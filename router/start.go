package router

import (
	"context"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// startRuns starts what may start and hands it to Watermill. The lock is held, and whatever lets more start calls it.
func (in *intake) startRuns() {
	for {
		in.wantsMore.Store(true) // before the look: Watermill may take messages meanwhile
		if len(in.out) == cap(in.out) {
			break // startMore goes on
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

// startMore calls startRuns if that stopped because out was full.
func (in *intake) startMore() {
	if in.wantsMore.Load() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.startRuns()
	}
}

// next takes the next entry that may start from its lane. The lock is held.
func (in *intake) startNext() *entry {
	if in.stopping || in.givingBack || in.life.Err() != nil {
		return nil
	}
	// A refusal uses nothing that may be down, so it starts during a pause too, and isn't a probe.
	if e := in.lanes.startRefusal(); e != nil || !in.pause.mayStart() {
		return e
	}
	e := in.lanes.startNext(time.Now())
	if e != nil && in.pause.isOn() {
		in.pause.probe = e
	}
	return e
}

// watch waits for the end of a context that deliveries share, to cancel their runs.
type watch struct {
	runs int
	stop func() bool
}

// watch has an entry's run cancelled when its delivery becomes void. The lock is held.
func (in *intake) watchDelivery(e *entry) {
	ctx := e.delivery.Context
	w := in.watches[ctx.Done()]
	if w == nil {
		w = &watch{stop: context.AfterFunc(ctx, func() { in.cancelVoid(ctx) })}
		in.watches[ctx.Done()] = w
	}
	w.runs++
}

// unwatch undoes watch for one entry. The lock is held.
func (in *intake) unwatchDelivery(e *entry) {
	done := e.delivery.Context.Done()
	w := in.watches[done]
	if w.runs--; w.runs == 0 {
		w.stop()
		delete(in.watches, done)
	}
}

// cancelVoid cancels the runs whose delivery became void with ctx. It spares those that are kept. It also spares
// those that are publishing, unless nobody waits for that any more: a redelivered copy takes their outcome over.
func (in *intake) cancelVoid(ctx context.Context) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for e := range in.active {
		if e.delivery.Context.Done() == ctx.Done() && !e.keptRun && (!e.publishing || in.source.Impatient) {
			e.run.cancel(context.Cause(ctx))
		}
	}
}

// cancelRuns cancels all runs: the pipeline's life has ended.
func (in *intake) cancelRuns() {
	in.mu.Lock()
	defer in.mu.Unlock()
	for e := range in.active {
		e.run.cancel(context.Cause(in.life))
	}
}
