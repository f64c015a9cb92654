package router

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

// holds is the second source of an intake: it brings held messages back. heldQueues decides which
// and when; holds adds the lock, the clock and the goroutine.
type holds struct {
	pipeline string
	ledger   middleware.Ledger
	handler  handlers.Holder
	inject   func([]*released) bool
	log      *slog.Logger
	now      func() time.Time
	gauge    prometheus.Gauge
	closed   <-chan struct{}
	life     context.Context
	wake     chan struct{}

	// mu is taken under the locks of the intake and of devices; nothing else is locked while it is held.
	mu     sync.Mutex
	queues *heldQueues
	// ended says that nothing comes back any more.
	ended bool
}

// newHolds returns the holds of a pipeline. At most most of its messages are in flight at once, and
// perQueue from one queue.
func newHolds(h *holds, most, perQueue int) *holds {
	h.wake = make(chan struct{}, 1)
	h.queues = newHeldQueues(most, perQueue)
	h.handler.Watch(func(awaits string) { h.update(func(q *heldQueues) { q.markReady(awaits) }) })
	return h
}

// update changes the queues, and wakes run if there may be more to release then.
func (h *holds) update(change func(*heldQueues)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h.queues)
	if h.queues.changed {
		h.queues.changed = false
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

// run is the goroutine that releases messages, until the intake closes.
func (h *holds) run() {
	ctx, cancel := context.WithCancel(h.life)
	defer cancel()
	go func() {
		select {
		case <-h.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	owned, err := h.ledger.Owned(ctx, h.pipeline)
	if err != nil {
		return // it is closed
	}
	h.loadOwned(owned)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		back, wait := h.release()
		if len(back) > 0 {
			if !h.inject(back) {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-h.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

func (h *holds) loadOwned(owned []*handlers.Held) {
	if n := len(owned); n > 0 {
		h.log.Info("messages are held from before", "messages", n)
	}
	h.update(func(q *heldQueues) { q.loadOwned(owned) })
}

// release returns the messages that come back now, and for how long nothing more comes back unless something changes.
func (h *holds) release() (back []*released, wait time.Duration) {
	for {
		var asked *heldQueue
		h.update(func(q *heldQueues) { asked = q.nextCheck() })
		if asked == nil {
			break
		}
		ready := h.handler.Ready(asked.awaits)
		h.update(func(q *heldQueues) { q.finishCheck(asked, ready) })
	}
	h.update(func(q *heldQueues) {
		back, wait = q.release(time.Now(), h.now())
		h.gauge.Set(float64(q.waiting + len(q.aside)))
	})
	return back, wait
}

// end notes that nothing comes back any more. Runs that wait for that are woken.
func (h *holds) endReleases() {
	h.update(func(q *heldQueues) {
		h.ended = true
		q.notifyAllWaiters()
	})
}

func (h *holds) markPlaced(e *entry) {
	h.update(func(q *heldQueues) { q.markPlaced(e) })
}

// settle takes in the end of a run: see heldQueues.settle.
func (h *holds) settleRun(e *entry, acked, rerun bool) {
	var done *released
	h.update(func(q *heldQueues) { done = q.settleRun(e, acked, rerun, time.Now()) })
	if done != nil {
		h.ledger.Disown(middleware.LedgerKey{Pipeline: h.pipeline, ID: done.ID, Device: done.Key})
	}
}

// before is handlers.HeldBefore. In a stop it ends a run that would wait: its message goes back to its source.
func (h *holds) pendingOlder(r *run, awaits string) (wait <-chan struct{}, err error) {
	h.update(func(q *heldQueues) {
		wait, err = q.pendingOlder(r.entry, awaits)
		if wait != nil && h.ended {
			r.cancel(errStopped)
		}
	})
	return wait, err
}

// resume puts released messages into their lanes. It returns false once the intake takes no more.
func (in *intake) addReleased(back []*released) bool {
	entries := make([]*entry, len(back))
	for i, r := range back {
		d := in.ledgerDelivery(r.UUID, r.Payload, r.Metadata)
		msg := d.Message()
		desc, err := in.describe(msg)
		if err != nil {
			in.log.Warn("a message that was held can't be described any more", "id", r.ID, "err", err)
		}
		desc.ID, desc.Key = r.ID, r.Key
		r.Resumption.Expires = r.Held.Expires
		entries[i] = &entry{delivery: d, message: msg, desc: desc, released: r}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping || isClosed(in.ending) {
		return false
	}
	now := time.Now()
	for _, e := range entries {
		in.lanes.addEntry(e, e.released.aside, now)
	}
	in.startRuns()
	return true
}

// deliver makes a delivery of a message from the ledger. It can't become void, and its outcome is
// sent to the message's reply_to.
func (in *intake) ledgerDelivery(uuid string, payload []byte, metadata message.Metadata) *transports.Delivery {
	return &transports.Delivery{
		UUID: uuid, Payload: payload, Metadata: metadata, Context: context.Background(),
		Settle: func(o *transports.Outcome) { in.sendOutcome(metadata, o) },
	}
}

// answer sends an outcome to the reply_to in metadata, if there is one.
func (in *intake) sendOutcome(metadata message.Metadata, o *transports.Outcome) {
	if o != nil && in.answerer != nil {
		in.answerer.Answer(metadata, o)
	}
}

// What a run says and hears of held messages.

func (r *run) Resumed() *handlers.Resumption {
	switch e := r.entry; {
	case e.released != nil:
		return &e.released.Resumption
	case e.abandoned:
		return &handlers.Resumption{Abandoned: true}
	default:
		return nil
	}
}

func (r *run) MayHold(awaits string) {
	if h := r.in.holds; h != nil {
		h.update(func(q *heldQueues) { q.markUndecided(r.entry, awaits) })
	}
}

func (r *run) HeldBefore(awaits string) (<-chan struct{}, error) {
	if r.in.holds == nil {
		return nil, nil
	}
	return r.in.holds.pendingOlder(r, awaits)
}

func (r *run) Held(held *handlers.Held) {
	h, e := r.in.holds, r.entry
	if h == nil {
		return
	}
	h.update(func(q *heldQueues) {
		switch {
		case e.released != nil:
			e.heldAs = e.released.Held
		case !q.recordSeen(held):
			e.heldAs = held
		}
	})
}
