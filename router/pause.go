package router

import (
	"math/rand/v2"
	"time"

	"github.com/pentrough/pentrough/handlers"
)

// The times of an outage: a paused pipeline is probed after 100 ms, then at doubling intervals up to 10 s, each up to a fifth
// shorter so that hosts don't probe in step; later if the error asks for that, within longPause, after which the source gets its messages back.
const (
	firstProbe     = 100 * time.Millisecond
	lastProbe      = 10 * time.Second
	longPause      = time.Minute
	reopenInterval = 100 * time.Millisecond
)

// backoff is a doubling, jittered interval.
type backoff struct{ interval, last time.Duration }

func newBackoff(first, last time.Duration) *backoff { return &backoff{min(first, last), last} }

func (b *backoff) next() time.Duration {
	d := b.interval
	b.interval = min(2*d, b.last)
	return d - rand.N(d/5+1)
}

// pause is the state of an outage: nothing starts but one probe at a time.
type pause struct {
	longest time.Duration // between two probes

	err   error
	since time.Time
	due   bool   // a probe may start
	probe *entry // runs
	wait  *backoff
	timer *time.Timer
}

func (p *pause) on() bool { return p.err != nil }

// mayStart reports whether a message may start.
func (p *pause) mayStart() bool { return !p.on() || p.due && p.probe == nil }

// long reports whether the outage is so long that the source should have its messages back until the next probe.
func (p *pause) long(now time.Time) bool {
	return p.on() && p.probe == nil && !p.due && now.Sub(p.since) >= longPause
}

// begin starts the outage, or goes on with it after a failed probe.
func (p *pause) begin(cause error, probed bool, due func()) {
	first := !p.on()
	if first {
		p.since, p.wait = time.Now(), newBackoff(firstProbe, p.longest)
	}
	p.err = cause
	if first || probed {
		p.due = false
		p.timer = time.AfterFunc(max(p.wait.next(), min(handlers.RetryAfterOf(cause), longPause)), due)
	}
}

func (p *pause) end() {
	if p.timer != nil {
		p.timer.Stop()
	}
	*p = pause{longest: p.longest}
}
