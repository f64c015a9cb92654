package router

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/pentrough/pentrough/handlers"
	pauses "github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
)

// A pipeline that begins a pause is probed after firstProbe, and then after doubling intervals up
// to lastProbe. An error with a longer RetryAfter extends the interval, up to maxRetryAfter.
// reopenInterval is the first pause before a new subscription.
const (
	firstProbe     = 100 * time.Millisecond
	lastProbe      = 10 * time.Second
	maxRetryAfter  = time.Minute
	reopenInterval = 100 * time.Millisecond
)

// pause stops a pipeline from starting runs while something that the handler needs is down.
// Without it, all messages of the source would fail one after the other.
//
// The states, and the methods that change them:
//
//	off      runs start. A run that ends with an unavailable error begins the pause (beginOrProlong).
//	waiting  only refusals start. A timer runs, and then a probe is due.
//	due      the next run that starts is the probe (startNext).
//	probing  the probe runs, and only refusals start. If it succeeds, the pause ends (endPause). If it
//	         fails with an unavailable error, the pause waits again, longer (beginOrProlong). After
//	         any other end, another probe is due.
//
// The invariants: at most one probe runs. Runs that had started before the pause go on, and their
// failures don't prolong it. The lock of the intake guards pause.
type pause struct {
	maxInterval time.Duration // the longest time between two probes
	state       *outage.Outage

	probeDue bool   // a probe may start, unless one runs
	probe    *entry // the probe that runs, or nil
	backoff  backoff.ExponentialBackOff
	timer    *time.Timer
}

// isOn reports whether the pipeline is paused.
func (p *pause) isOn() bool { return p.state.Down() }

// mayStart reports whether a run may start.
func (p *pause) mayStart() bool { return !p.isOn() || p.probeDue && p.probe == nil }

// beginOrProlong begins the pause, or goes on with it after a failed probe. It calls due when the
// next probe is due.
func (p *pause) beginOrProlong(cause error, probed bool, due func()) {
	first := !p.isOn()
	if first {
		p.backoff = pauses.New(firstProbe, p.maxInterval)
	}
	p.state.Report(cause)
	if first || probed {
		p.probeDue = false
		p.timer = time.AfterFunc(max(p.backoff.NextBackOff(), min(handlers.RetryAfterOf(cause), maxRetryAfter)), due)
	}
}

// endPause ends the pause. If works is true, it also logs that the outage is over.
func (p *pause) endPause(works bool) {
	if works {
		p.state.Report(nil)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.state.Forget(nil)
	*p = pause{maxInterval: p.maxInterval, state: p.state}
}
