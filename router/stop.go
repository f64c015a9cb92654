package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

const (
	// closeTime bounds the closing of everything that hasn't ended by itself, such as a connection
	// to a broker that doesn't respond. Half of it is for pipelines, and half for transports.
	closeTime    = 6 * time.Second
	minCloseTime = 100 * time.Millisecond
)

// Stop stops the host before ctx ends, in these stages:
//
//  1. Transports take no new messages from outside.
//  2. Pipelines whose messages don't come from devices settle the runs that they have started.
//  3. The sessions of devices close, and pipelines publish their last events.
//  4. Pipelines whose messages come from devices handle all messages that are left.
//  5. Unfinished runs are cancelled, and everything is closed.
//
// Stage 5 begins early if the earlier stages would use up the time that closing needs.
//
// The error says how many messages weren't settled in time. A broker redelivers its messages.
func (h *Host) Stop(ctx context.Context) error {
	life := ctx
	ctx, cancel := settlingContext(life)
	defer cancel()
	for _, t := range h.ordered {
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

// settlingContext returns the context of a stop's stages 1 to 4. A quarter of the stop's time is
// left for closing, or closeTime if that is less. Otherwise the supervisor of the process, such as
// systemd, could kill it before everything is closed.
func settlingContext(life context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := life.Deadline()
	if !ok {
		return context.WithCancel(life)
	}
	return context.WithDeadline(life, deadline.Add(-min(closeTime, time.Until(deadline)/4)))
}

// waitFor waits until done is closed or ctx ends.
func waitFor(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// closeSessions closes the sessions of all devices.
func (h *Host) closeSessions(ctx context.Context) {
	var work sync.WaitGroup
	for _, t := range h.ordered {
		if p, ok := t.Transport.(device.Provider); ok {
			work.Go(func() { p.CloseSessions(ctx) })
		}
	}
	work.Wait()
}

// feedersByPipeline returns for each pipeline its feeders: the pipelines that publish to its
// source. If the source is a broker, a pipeline has no feeders, since the broker stores the
// messages.
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

// fedByDevices returns the pipelines whose messages come from devices, directly or through other
// pipelines.
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

// close cancels all runs and closes everything. It gives up after closeTime, or at an earlier
// deadline of ctx. But closing may always take minCloseTime, even if the deadline is earlier.
func (h *Host) close(ctx context.Context) error {
	left := closeTime
	if deadline, ok := ctx.Deadline(); ok {
		left = min(left, max(minCloseTime, time.Until(deadline)))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), left)
	defer cancel()
	half, cancelHalf := context.WithTimeout(ctx, left/2)
	defer cancelHalf()
	errs := make([]error, len(h.pipelines)+len(h.ordered))
	var work sync.WaitGroup
	for i, p := range h.pipelines {
		work.Go(func() { errs[i] = p.close(half) })
	}
	work.Wait()
	h.closeBans()
	for i, t := range h.ordered {
		work.Go(func() {
			if err := t.Close(ctx); err != nil {
				errs[len(h.pipelines)+i] = fmt.Errorf("closing transport %s: %w", t.name, err)
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}
