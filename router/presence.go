package router

import (
	"sync"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// presence is a clock that stands still while a pipeline has no consumer at its source.
type presence struct {
	mu sync.Mutex
	// before is the time of the subscribers that are closed.
	before time.Duration
	// current is the open subscriber's clock; nil between two.
	current func() time.Duration
}

// open takes the clock of a subscriber that begins. One that has none is always present.
func (p *presence) open(sub transports.Subscriber) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := sub.(transports.Presence); ok {
		p.current = s.Present
		return
	}
	began := time.Now()
	p.current = func() time.Duration { return time.Since(began) }
}

// close ends the subscriber's time.
func (p *presence) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.current = p.before+p.current(), nil
}

// elapsed is the clock's time.
func (p *presence) elapsed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return p.before
	}
	return p.before + p.current()
}

// stands is how the source stands.
func (in *intake) stands(now time.Time) handlers.Source {
	s := handlers.Source{Present: in.presence.elapsed()}
	in.mu.Lock()
	defer in.mu.Unlock()
	s.Oldest, s.Full = in.lanes.unsettled(now)
	return s
}

// unsettled returns the age of the oldest entry, and whether the window is full of them.
func (l *lanes) unsettled(now time.Time) (oldest time.Duration, full bool) {
	n := 0
	look := func(all ...*entry) {
		for _, e := range all {
			if e != nil {
				n, oldest = n+1, max(oldest, now.Sub(e.arrived))
			}
		}
	}
	look(l.refused...)
	for _, ln := range l.byKey {
		look(ln.holder)
		look(ln.waiting...)
		look(ln.placed...)
		look(ln.nacked...)
	}
	return oldest, l.window > 0 && n >= l.window
}
