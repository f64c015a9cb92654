package router

import (
	"fmt"
	"time"
)

// stop takes no more and starts no more; what is started goes on. drained is closed when it is settled.
func (in *intake) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping {
		return
	}
	in.stopping = true
	in.endSource()
	for _, e := range in.lanes.forget() {
		e.msg.Nack()
	}
	if in.endIntake != nil {
		in.endIntake()
	}
	in.checkDrained()
}

// drain lets the source run dry: drained is closed when it has ended and everything is settled.
func (in *intake) drain() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.draining = true
	in.endSource()
	in.checkDrained()
}

// endSource keeps the source from being opened again. The lock is held.
func (in *intake) endSource() {
	select {
	case <-in.ending:
	default:
		close(in.ending)
	}
}

// checkDrained closes drained if nothing is left. The lock is held.
func (in *intake) checkDrained() {
	if !in.stopping && !in.draining || in.reading || len(in.active) > 0 || in.lanes.waiting > 0 || len(in.lanes.refused) > 0 || in.lanes.nacked() {
		return
	}
	select {
	case <-in.drained:
	default:
		close(in.drained)
	}
}

// left says what keeps the intake from being drained.
func (in *intake) left() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return fmt.Sprintf("%d messages running, %d waiting", len(in.active), in.lanes.waiting+len(in.lanes.refused))
}

// outage returns why the pipeline is paused, or nil.
func (in *intake) outage() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	// Who can't wait sends nothing while it is told that the pipeline is paused: once a probe is due, it is welcome.
	if !in.pause.on() || in.source.Impatient && in.pause.mayProbe() {
		return nil
	}
	return fmt.Errorf("paused since %s, probing: %w", in.pause.since.Format(time.RFC3339), in.pause.err)
}

// Close ends everything at once. Watermill calls it from Router.Close.
func (in *intake) Close() error {
	in.mu.Lock()
	if in.closing {
		in.mu.Unlock()
		return nil
	}
	in.closing = true
	in.endSource()
	in.pause.end()
	sub := in.subscriber
	if in.endIntake != nil {
		in.endIntake()
	}
	in.mu.Unlock()
	close(in.closed)
	if sub != nil {
		return sub.Close()
	}
	return nil
}
