package tcp

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// The limits of the coarse clock's step.
const (
	shortestStep = 5 * time.Millisecond
	longestStep  = time.Second
)

var errFirstFrameLate = errors.New("it didn't arrive within identity.timeout")

// sweepStep is the time between two steps of the coarse clock, and between two checks of the
// connections.
func (t *transport) sweepStep() time.Duration {
	shortest := t.config.Identity.Timeout
	if t.config.IdleTimeout > 0 {
		shortest = min(shortest, t.config.IdleTimeout)
	}
	return min(max(shortest/8, shortestStep), longestStep)
}

// sweep moves the coarse clock and closes connections that were silent for too long.
func (t *transport) sweep() {
	step := t.sweepStep()
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
			if c.isSilent(now, step) {
				silent = append(silent, c)
			}
		}
		t.mu.Unlock()
		t.tickAll()
		for _, c := range silent {
			if session := c.session.Load(); session != nil {
				session.End(device.IdleTimeout)
				continue
			}
			c.timedOut.Store(true)
			c.closeSocket()
		}
		clear(silent)
	}
}

// tickAll lets the protocol of every session act if it is time.
func (t *transport) tickAll() {
	if !t.ticks {
		return
	}
	now := time.Now()
	t.mu.Lock()
	conns := slices.Collect(maps.Keys(t.conns))
	t.mu.Unlock()
	for _, c := range conns {
		if session := c.session.Load(); session != nil {
			c.tick(session, now)
		}
	}
}

// isSilent reports whether the connection was silent for too long. Its times may be one step old.
func (c *conn) isSilent(now int64, step time.Duration) bool {
	config := &c.transport.config
	switch {
	case c.session.Load() == nil:
		return !c.named.Load() && now-c.began > (config.Identity.Timeout+step).Milliseconds()
	case config.IdleTimeout == 0:
		return false
	case c.handling.Load():
		c.lastRead.Store(now)
		return false
	}
	return now-c.lastRead.Load() > (config.IdleTimeout + step).Milliseconds()
}
