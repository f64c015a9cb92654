package listen

import "net"

// Dial calls dial, and returns the connection that dial has opened. The connection has a place
// from before the call of dial until its Close. It counts for Limits.Max and Limits.Share, and it
// is kept: the operator chose its peer. For its place, the gate displaces another connection, as
// for an accepted one. If all others are kept, the error is a [*Refusal]. The other limits are for
// accepted connections alone.
func (g *Gate) Dial(dial func() (net.Conn, error)) (*Conn, error) {
	victim, err := g.takePlace()
	if err != nil {
		return nil, err
	}
	if victim != nil {
		_ = victim.Conn.Close() // its user gets an error
	}
	c := &Conn{gate: g}
	if c.Conn, err = dial(); err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.remove(c)
		return nil, err
	}
	return c, nil
}

// takePlace counts a further open connection. It returns the one that is displaced, or nil.
func (g *Gate) takePlace() (victim *Conn, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.life.Err() != nil:
		return nil, net.ErrClosed
	case g.open < g.limits.total():
	case g.unidentified.n > 0:
		victim = g.displace(&g.unidentified)
	case g.spare.n > 0:
		victim = g.displace(&g.spare)
	default:
		g.full = true
		return nil, g.noPlace()
	}
	g.open++
	return victim, nil
}
