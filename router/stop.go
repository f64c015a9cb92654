package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// closing is how long it takes at most to close what didn't end by itself, such as a connection to
// a broker that is silent. Half of it is for the pipelines, half for the transports.
const (
	closing         = 6 * time.Second
	shortestClosing = 100 * time.Millisecond
)

// Stop takes the host down in stages, inside the life of ctx: nothing new is taken in; pipelines
// fed from outside settle what they started; sessions close and their last events go out;
// pipelines fed by devices run dry. Then, or when only the time for closing is left of ctx's, what
// still runs is cancelled and everything is closed. The error says what wasn't settled in time;
// what a broker sent stays with it.
func (h *Host) Stop(ctx context.Context) error {
	life := ctx
	ctx, cancel := settlingContext(life)
	defer cancel()
	for _, t := range h.order {
		t.Quiesce()
	}
	sessions := make(chan struct{})
	feeders := h.feedersByPipeline()
	fed := h.fedByDevices(feeders)
	var work sync.WaitGroup
	for _, p := range h.pipelines {
		work.Go(func() {
			for _, f := range feeders[p] {
				waitFor(ctx, f.intake.drained)
			}
			if fed[p] {
				waitFor(ctx, sessions)
			}
			if ctx.Err() == nil {
				p.quiesce()
				waitFor(ctx, p.intake.drained)
			}
		})
	}
	work.Go(func() {
		defer close(sessions)
		for _, p := range h.pipelines {
			if !fed[p] {
				waitFor(ctx, p.intake.drained)
			}
		}
		h.closeSessions(ctx)
	})
	work.Wait()
	var errs []error
	for _, p := range h.pipelines {
		select {
		case <-p.intake.drained:
		default:
			err := fmt.Errorf("pipeline %s: %s", p.config.Name, p.intake.describeUnfinished())
			for _, outage := range p.out.outages() {
				err = fmt.Errorf("%w; %w", err, outage)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, h.close(life))...)
}

// staging is the part of a stop's life in which messages are settled. A quarter of it, but no more
// than closing, is left for the rest: what supervises the process kills it when its time is over.
func settlingContext(life context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := life.Deadline()
	if !ok {
		return context.WithCancel(life)
	}
	return context.WithDeadline(life, deadline.Add(-min(closing, time.Until(deadline)/4)))
}

func waitFor(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (h *Host) closeSessions(ctx context.Context) {
	var work sync.WaitGroup
	for _, t := range h.order {
		if p, ok := t.Transport.(device.Provider); ok {
			work.Go(func() { p.CloseSessions(ctx) })
		}
	}
	work.Wait()
}

// feeders returns for each pipeline those that publish to its source inside the host.
func (h *Host) feedersByPipeline() map[*pipeline][]*pipeline {
	all := map[*pipeline][]*pipeline{}
	for _, p := range h.pipelines {
		for _, f := range h.pipelines {
			if f.out.publishesTo(p.config.From) && !p.intake.source.Broker {
				all[p] = append(all[p], f)
			}
		}
	}
	return all
}

// fedByDevices returns the pipelines whose messages come from sessions, directly or through
// others.
func (h *Host) fedByDevices(feeders map[*pipeline][]*pipeline) map[*pipeline]bool {
	fed := map[*pipeline]bool{}
	var visit func(p *pipeline) bool
	visit = func(p *pipeline) bool {
		if known, ok := fed[p]; ok {
			return known
		}
		_, fed[p] = p.source.(device.Provider)
		for _, f := range feeders[p] {
			fed[p] = visit(f) || fed[p]
		}
		return fed[p]
	}
	for _, p := range h.pipelines {
		visit(p)
	}
	return fed
}

// close ends everything at once, inside ctx's time if it has one, and else within closing.
func (h *Host) close(ctx context.Context) error {
	left := closing
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, max(shortestClosing, time.Until(deadline)))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	half, cancelHalf := context.WithTimeout(ctx, left/2)
	defer cancelHalf()
	errs := make([]error, len(h.pipelines)+len(h.order))
	var work sync.WaitGroup
	for i, p := range h.pipelines {
		work.Go(func() { errs[i] = p.close(half) })
	}
	work.Wait()
	for i, t := range h.order {
		work.Go(func() {
			if err := t.Close(ctx); err != nil {
				errs[len(h.pipelines)+i] = fmt.Errorf("closing transport %s: %w", t.name, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}
