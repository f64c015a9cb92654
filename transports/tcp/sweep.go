package tcp

import (
	"errors"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// The bounds of the coarse clock's step.
const (
	shortestStep = 5 * time.Millisecond
	longestStep  = time.Second
)

var errSilent = errors.New("it didn't come within identity.timeout")

// step is how often the coarse clock moves and connections are looked at.
func (t *transport) step() time.Duration {
	shortest := t.config.Identity.Timeout
	if t.config.IdleTimeout > 0 {
		shortest = min(shortest, t.config.IdleTimeout)
	}
	return min(max(shortest/8, shortestStep), longestStep)
}

// sweep moves the coarse clock and ends connections that were silent for too long.
func (t *transport) sweep() {
	step := t.step()
	ticker := time.NewTicker(step)
	defer ticker.Stop()
	var silent []*conn
	for {
		select {
		case <-ticker.C:
		case <-t.ctx.Done():
			return
		}
		now := time.Since(t.began).Milliseconds()
		t.clock.Store(now)
		silent = silent[:0]
		t.mu.Lock()
		for c := range t.conns {
			if c.silent(now, step) {
				silent = append(silent, c)
			}
		}
		t.mu.Unlock()
		for _, c := range silent {
			if session := c.session.Load(); session != nil {
				session.End(device.IdleTimeout)
				continue
			}
			c.late.Store(true)
			c.shut()
		}
		clear(silent)
	}
}

// silent reports whether the connection's time is over. Its stamps may be a step old.
func (c *conn) silent(now int64, step time.Duration) bool {
	config := &c.transport.config
	switch {
	case c.session.Load() == nil:
		// While it waits for its turn (see device.Registry.Connect) its device is known already, and busy is set.
		return !c.busy.Load() && now-c.began > (config.Identity.Timeout+step).Milliseconds()
	case config.IdleTimeout == 0:
		return false
	case c.busy.Load():
		c.seen.Store(now)
		return false
	}
	return now-c.seen.Load() > (config.IdleTimeout + step).Milliseconds()
}
