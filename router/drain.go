package router

import (
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// stop takes no more and starts no more; what is started goes on. drained is closed when it is
// settled.
func (in *intake) stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping {
		return
	}
	in.stopping = true
	in.endSource()
	for _, e := range in.lanes.dropUnstarted(anyEntry) {
		in.rejectEntry(e, transports.ErrNotStarted)
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
	in.endSource()
	in.checkDrained()
}

// endSource keeps the source from being opened again. The lock is held.
func (in *intake) endSource() {
	if !isClosed(in.ending) {
		close(in.ending)
		if in.holds != nil {
			in.holds.endReleases()
		}
	}
}

// checkDrained closes drained if nothing is left. The lock is held.
func (in *intake) checkDrained() {
	if isClosed(in.drained) || !isClosed(in.ending) || in.reading || len(in.active) > 0 || in.lanes.hasUnstarted() {
		return
	}
	close(in.drained)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// left says what keeps the intake from being drained, and what becomes of it.
func (in *intake) describeUnfinished() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	running, waiting := len(in.active), in.lanes.waiting+len(in.lanes.refused)
	switch {
	case running == 0 && waiting == 0:
		return "its source didn't end"
	case in.source.Broker:
		return describeMessages(running) + " not settled in time, so the broker will deliver again"
	default:
		return describeMessages(running+waiting) + " not handled in time; nothing keeps what was not, so this stop loses it"
	}
}

func describeMessages(n int) string {
	if n == 1 {
		return "1 message was"
	}
	return fmt.Sprintf("%d messages were", n)
}

// outage returns why the pipeline is paused, or nil.
func (in *intake) pauseError() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	// Who can't wait sends nothing while it is told that the pipeline is paused: once a probe is
	// due, it is welcome.
	if !in.pause.isOn() || in.source.Impatient && in.pause.mayStart() {
		return nil
	}
	return fmt.Errorf("paused since %s, probing: %w", in.pause.state.Since().Format(time.RFC3339), in.pause.state.Err())
}

// Close ends everything at once. Watermill calls it from Router.Close.
func (in *intake) Close() error {
	in.stop()
	in.mu.Lock()
	if isClosed(in.closed) {
		in.mu.Unlock()
		return nil
	}
	close(in.closed)
	close(in.out) // nothing starts any more
	in.pause.endPause(false)
	sub := in.subscriber
	in.mu.Unlock()
	if sub != nil {
		return sub.Close()
	}
	return nil
}
