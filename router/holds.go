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

// holds releases the held messages of a pipeline: it is the second source of the intake.
//
// The ledger stores held messages and owns them. The intake's source doesn't redeliver them any
// more. heldQueues keeps the order and decides which messages are released; its comment explains
// the states. holds adds the lock, the clock and one goroutine (run). That goroutine reads the
// ledger's messages at the start. Then it waits until a queue changes or its timer fires. While
// the lock is unlocked, it asks the handler which queues are ready. It gives the released messages
// to the intake.
//
// Invariants: as long as the ledger owns a message, the message is in a queue, is in
// heldQueues.aside, or has been released and is unsettled. When a released message is done, the
// ledger disowns it.
//
// The lock order: holds.mu is the innermost lock. The intake takes it with intake.mu, and handlers
// take it with locks of devices. While holds.mu is locked, no code takes another lock or calls the
// handler.
type holds struct {
	pipeline string
	ledger   middleware.Ledger
	handler  handlers.Holder
	// inject adds released messages to the intake. It returns false if the intake takes no more.
	inject func([]*released) bool
	log    *slog.Logger
	now    func() time.Time
	gauge  prometheus.Gauge
	closed <-chan struct{} // closed when the intake closes
	life   context.Context // ends at the deadline of a stop
	wake   chan struct{}   // wakes run

	mu     sync.Mutex
	queues *heldQueues
	// ended says that no messages are released any more.
	ended bool
}

// newHolds returns the holds of a pipeline. most is how many released messages may be unsettled in
// total, and perQueue how many of one queue.
func newHolds(h *holds, most, perQueue int) *holds {
	h.wake = make(chan struct{}, 1)
	h.queues = newHeldQueues(most, perQueue)
	h.handler.Watch(func(awaits string) { h.update(func(q *heldQueues) { q.markReady(awaits) }) })
	return h
}

// update changes the queues, and wakes run if that may release messages.
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

// run releases messages until the intake closes. It is a goroutine.
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
		return // the ledger or the intake is closed
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
		h.log.Info("loaded held messages from the ledger", "messages", n)
	}
	h.update(func(q *heldQueues) { q.loadOwned(owned) })
}

// release checks which queues are ready, and returns the messages to release. wait is how
// long to wait for the next call; see heldQueues.release.
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

// endReleases records that no messages are released any more. It wakes the runs that wait for
// older messages, so that pendingOlder cancels them.
func (h *holds) endReleases() {
	h.update(func(q *heldQueues) {
		h.ended = true
		q.notifyAllWaiters()
	})
}

func (h *holds) markPlaced(e *entry) {
	h.update(func(q *heldQueues) { q.markPlaced(e) })
}

// settleRun records the end of a run: see heldQueues.settleRun.
func (h *holds) settleRun(e *entry, acked, rerun bool) {
	var done *released
	h.update(func(q *heldQueues) { done = q.settleRun(e, acked, rerun, time.Now()) })
	if done != nil {
		h.ledger.Disown(middleware.LedgerKey{Pipeline: h.pipeline, ID: done.ID, Device: done.Key})
	}
}

// isAwaited reports whether newer messages of the same key have to wait for the entry.
func (h *holds) isAwaited(e *entry) (awaited bool) {
	h.update(func(*heldQueues) {
		awaited = e.undecidedFor != "" || e.released != nil && !e.released.aside && !e.released.placed
	})
	return awaited
}

// pendingOlder implements handlers.HeldBefore. After endReleases it cancels a run that would wait,
// so that the message goes back to its source.
func (h *holds) pendingOlder(r *run, awaits string) (wait <-chan struct{}, err error) {
	h.update(func(q *heldQueues) {
		wait, err = q.pendingOlder(r.entry, awaits)
		if wait != nil && h.ended {
			r.cancel(errStopped)
		}
	})
	return wait, err
}

// addReleased adds released messages to their lanes. It returns false if the intake takes no more
// messages.
func (in *intake) addReleased(back []*released) bool {
	entries := make([]*entry, len(back))
	for i, r := range back {
		d := in.ledgerDelivery(r.UUID, r.Payload, r.Metadata)
		msg := d.Message()
		desc, err := in.describe(msg)
		if err != nil {
			in.log.Warn("describing a released message", "id", r.ID, "err", err)
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

// ledgerDelivery makes a delivery of a message from the ledger. The delivery never becomes void.
// The message's outcome is sent to the reply_to in metadata.
func (in *intake) ledgerDelivery(uuid string, payload []byte, metadata message.Metadata) *transports.Delivery {
	return &transports.Delivery{
		UUID: uuid, Payload: payload, Metadata: metadata, Context: context.Background(),
		Settle: func(o *transports.Outcome) { in.sendOutcome(metadata, o) },
	}
}

// sendOutcome sends an outcome to the reply_to in metadata. It does nothing without an outcome or
// a reply_to, or if the source can't answer.
func (in *intake) sendOutcome(metadata message.Metadata, o *transports.Outcome) {
	if o != nil && in.answerer != nil {
		in.answerer.Answer(metadata, o)
	}
}

// These methods are the part of handlers.Scope for held messages.

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
	switch {
	case r.in.holds == nil:
		return nil, nil
	case r.life.Err() != nil:
		return nil, context.Cause(r.life)
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
