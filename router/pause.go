package router

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/pentrough/pentrough/handlers"
	pauses "github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
)

// The times of an outage: a paused pipeline is probed after 100 ms, then at doubling intervals up to 10 s; later if the error asks for that, within longestAsked.
const (
	firstProbe     = 100 * time.Millisecond
	lastProbe      = 10 * time.Second
	longestAsked   = time.Minute
	reopenInterval = 100 * time.Millisecond
)

// pause is the state of an outage: nothing starts but one probe at a time.
type pause struct {
	longest time.Duration // between two probes
	state   *outage.Outage

	due   bool   // a probe may start
	probe *entry // runs
	wait  backoff.ExponentialBackOff
	timer *time.Timer
}

func (p *pause) isOn() bool { return p.state.Down() }

// mayStart reports whether a message may start.
func (p *pause) mayStart() bool { return !p.isOn() || p.due && p.probe == nil }

// begin starts the outage, or goes on with it after a failed probe.
func (p *pause) beginOrProlong(cause error, probed bool, due func()) {
	first := !p.isOn()
	if first {
		p.wait = pauses.New(firstProbe, p.longest)
	}
	p.state.Report(cause)
	if first || probed {
		p.due = false
		p.timer = time.AfterFunc(max(p.wait.NextBackOff(), min(handlers.RetryAfterOf(cause), longestAsked)), due)
	}
}

// end ends the outage, which the log is told unless nothing worked.
func (p *pause) endPause(works bool) {
	if works {
		p.state.Report(nil)
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	p.state.Forget(nil)
	*p = pause{longest: p.longest, state: p.state}
}
