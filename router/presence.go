package router

import (
	"sync"
	"time"

	"github.com/pentrough/pentrough/handlers"
)

// presence is a clock that stands still while a pipeline has no consumer at its source.
type presence struct {
	mu sync.Mutex
	// subscribers is how many have been opened; only the last one moves the clock.
	subscribers int
	present     bool
	// counted is the time until since.
	counted time.Duration
	since   time.Time
}

// open returns what the next subscriber reports its presence to.
func (p *presence) openSubscriber() (report func(present bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subscribers++
	n := p.subscribers
	return func(present bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if n == p.subscribers {
			p.advance()
			p.present = present
		}
	}
}

// close ends the last subscriber's time.
func (p *presence) closeSubscriber() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	p.subscribers++
	p.present = false
}

// elapsed is the clock's time.
func (p *presence) elapsed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	return p.counted
}

// advance counts the time until now. The lock is held.
func (p *presence) advance() {
	now := time.Now()
	if p.present {
		p.counted += now.Sub(p.since)
	}
	p.since = now
}

// stands is how the source stands.
func (in *intake) sourceState(now time.Time) handlers.Source {
	s := handlers.Source{Present: in.presence.elapsed()}
	in.mu.Lock()
	defer in.mu.Unlock()
	s.Oldest, s.Full = in.lanes.oldestUnsettled(now)
	return s
}

// unsettled returns the age of the oldest entry, and whether the window is full of them.
func (l *lanes) oldestUnsettled(now time.Time) (oldest time.Duration, full bool) {
	n := 0
	l.eachUnsettled(func(e *entry) { n, oldest = n+1, max(oldest, now.Sub(e.arrived)) })
	return oldest, l.window > 0 && n >= l.window
}
