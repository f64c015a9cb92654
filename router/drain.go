package router

import (
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports"
)

// stop ends the subscription, and settles the entries that haven't started. Runs go on. When their
// entries are settled, too, the intake closes drained.
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

// drain lets the open subscription deliver the messages that the source still has, and prevents a
// new subscription. When the open one has ended and all entries are settled, the intake closes
// drained.
func (in *intake) drain() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.endSource()
	in.checkDrained()
}

// endSource closes ending and ends the releases of held messages. The caller has the lock.
func (in *intake) endSource() {
	if !isClosed(in.ending) {
		close(in.ending)
		if in.holds != nil {
			in.holds.endReleases()
		}
	}
}

// checkDrained closes drained if the source has ended and nothing is unsettled. The caller has the
// lock.
func (in *intake) checkDrained() {
	if isClosed(in.drained) || !isClosed(in.ending) || in.reading || len(in.active) > 0 || in.lanes.hasUnstarted() {
		return
	}
	close(in.drained)
}

// isClosed reports whether a channel is closed. It is for channels to which nobody sends.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// describeUnfinished returns a text for the error of a stop. It says what the intake hasn't
// finished, and what happens to those messages.
func (in *intake) describeUnfinished() string {
	in.mu.Lock()
	defer in.mu.Unlock()
	running, waiting := len(in.active), in.lanes.waiting+len(in.lanes.refused)
	switch {
	case running == 0 && waiting == 0:
		return "its source didn't end"
	case in.source.Broker:
		return describeMessages(running) + " not settled in time, so the broker redelivers them"
	default:
		return describeMessages(running+waiting) + " not handled in time; the source doesn't store messages, so these are lost"
	}
}

// describeMessages returns "1 message was", or the number with "messages were".
func describeMessages(n int) string {
	if n == 1 {
		return "1 message was"
	}
	return fmt.Sprintf("%d messages were", n)
}

// pauseError returns why the pipeline is paused, or nil.
func (in *intake) pauseError() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	// Callers that can't wait send nothing as long as the host reports the pause. So when a probe
	// is due, pauseError hides the pause from them, and the next message becomes the probe.
	if !in.pause.isOn() || in.source.Impatient && in.pause.mayStart() {
		return nil
	}
	return fmt.Errorf("paused since %s, probing: %w", in.pause.state.Since().Format(time.RFC3339), in.pause.state.Err())
}

// Close stops the intake without waiting for its runs. Watermill calls it in Router.Close.
func (in *intake) Close() error {
	in.stop()
	in.mu.Lock()
	if isClosed(in.closed) {
		in.mu.Unlock()
		return nil
	}
	close(in.closed)
	close(in.out) // nothing sends to it any more, since no run starts after stop
	in.pause.endPause(false)
	sub := in.subscriber
	in.mu.Unlock()
	if sub != nil {
		return sub.Close()
	}
	return nil
}
