package router

import (
	"sync"
	"time"

	"github.com/pentrough/pentrough/handlers"
)

// presence is a clock that runs only while the pipeline has a consumer at its source.
type presence struct {
	mu sync.Mutex
	// subscribers is how many subscribers have been opened. Only the last one can start and stop
	// the clock.
	subscribers int
	present     bool
	// counted is the clock's time at the last call of advance. since is when that call was.
	counted time.Duration
	since   time.Time
}

// openSubscriber returns the function with which the next subscriber starts and stops the clock.
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

// closeSubscriber stops the clock. The last subscriber can't start it any more.
func (p *presence) closeSubscriber() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	p.subscribers++
	p.present = false
}

// elapsed returns the clock's time.
func (p *presence) elapsed() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.advance()
	return p.counted
}

// advance adds the time since the last call if the clock runs. The caller has the lock.
func (p *presence) advance() {
	now := time.Now()
	if p.present {
		p.counted += now.Sub(p.since)
	}
	p.since = now
}

// sourceState returns the state of the source and of the intake's backlog.
func (in *intake) sourceState(now time.Time) handlers.Source {
	s := handlers.Source{Present: in.presence.elapsed()}
	in.mu.Lock()
	defer in.mu.Unlock()
	s.Oldest, s.Full = in.lanes.oldestUnsettled(now)
	return s
}

// oldestUnsettled returns the age of the oldest unsettled entry, and whether the window is full.
func (l *lanes) oldestUnsettled(now time.Time) (oldest time.Duration, full bool) {
	n := 0
	l.eachUnsettled(func(e *entry) { n, oldest = n+1, max(oldest, now.Sub(e.arrived)) })
	return oldest, l.window > 0 && n >= l.window
}
