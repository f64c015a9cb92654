package listen

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/internal/outage"
)

// pressureTime is for how long after a connection was displaced the listener counts as under
// pressure.
const pressureTime = 10 * time.Second

var errFull = errors.New("there is no place for a further connection")

// Limits are what a [Gate] allows.
type Limits struct {
	// Max is how many connections the setting max_connections allows at a time. 0: any number.
	Max int
	// Share is how many the process has descriptors for, see [Shares]. 0: any number.
	Share int
	// Unidentified is how many of them may be unidentified at a time. 0: all.
	Unidentified int
}

// Gate bounds the connections of one listener and decides which of them are closed when there
// are too many. Each connection is in one of three states:
//
//	unidentified  nothing but the peer's address is known; every connection begins so
//	kept          the peer has identified itself, and is being served
//	spare         the peer was served before, and waits for nothing
//
// The user of a connection moves it on by [Conn.Keep] and [Conn.Spare]. Up to its limits the gate
// does nothing. A connection beyond them displaces another one: the gate closes an unidentified
// one, or a spare one if all others are kept. It chooses the address that has most of them, and
// of this address the oldest. So a peer that opens many connections displaces its own, and
// another peer always gets in. A kept connection is never displaced.
//
// If all connections are kept, there is no place for a new one: see [NewGate].
type Gate struct {
	limits    Limits
	log       *slog.Logger
	refused   func(net.Conn, error)
	accepting *outage.Outage
	pressed   rate.Sometimes

	// served are the connections of Serve.
	served sync.WaitGroup
	// life ends when the listener is closed.
	life context.Context
	end  context.CancelFunc

	mu           sync.Mutex
	open         int
	unidentified candidates
	spare        candidates
	displaced    int
	displacedAt  time.Time
	// full says that there was no place for a connection, and that there has been none since.
	full bool
	// freed is signalled when there may be a place.
	freed sync.Cond
}

// NewGate returns a gate without connections. It calls refused with each connection for which
// there is no place, and then closes it. If refused is nil, such a connection waits for a place,
// and those behind it wait to be accepted.
func NewGate(limits Limits, log *slog.Logger, refused func(net.Conn, error)) *Gate {
	g := &Gate{
		limits: limits, log: log, refused: refused, accepting: outage.New(log, "accepting connections"),
		pressed: rate.Sometimes{Interval: pressureTime},
	}
	g.life, g.end = context.WithCancel(context.Background())
	g.freed.L = &g.mu
	return g
}

// most returns how many connections there may be.
func (l Limits) most() int {
	most := math.MaxInt
	for _, limit := range []int{l.Max, l.Share} {
		if limit > 0 {
			most = min(most, limit)
		}
	}
	return most
}

// cause says by which limit there are no more than most connections.
func (l Limits) cause() string {
	if l.Max == l.most() {
		return "max_connections allows"
	}
	return "the limit of open files allows (" + RaiseLimit + ")"
}

// Err returns why new connections aren't accepted, are refused or have to wait, or nil.
func (g *Gate) Err() error {
	if err := g.accepting.Err(); err != nil {
		return fmt.Errorf("accepting connections, trying again: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.full {
		return nil
	}
	return g.noPlace()
}

// noPlace returns why there is no place for a further connection. The lock is held.
func (g *Gate) noPlace() error {
	fate := "wait"
	if g.refused != nil {
		fate = "are refused"
	}
	return fmt.Errorf("%w: all %d that %s are in use; further ones %s until one ends", errFull, g.open, g.limits.cause(), fate)
}

// Note returns what is to be said of a gate that was under pressure in the last 10 seconds, or "".
func (g *Gate) Note() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.displaced == 0 || time.Since(g.displacedAt) > pressureTime {
		return ""
	}
	return fmt.Sprintf("under pressure: new connections displace the oldest of those that haven't identified themselves (%d so far); %d are open, %d of them unidentified",
		g.displaced, g.open, g.unidentified.n)
}

// admit takes a connection that was accepted. It returns nil if there is no place for it.
func (g *Gate) admit(socket net.Conn) *Conn {
	c := &Conn{Conn: socket, gate: g}
	victim, err := g.enter(c)
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			g.refused(socket, err)
		}
		_ = socket.Close() // nothing was said on it yet
		return nil
	}
	if victim != nil {
		g.pressed.Do(func() {
			g.log.Warn("the listener is under pressure: the oldest unidentified connections are closed for new ones", "peer", victim.RemoteAddr(), "new", socket.RemoteAddr())
		})
		_ = victim.Conn.Close() // its user learns of it
	}
	return c
}

// enter makes c one of the connections, and returns the one that it displaces, if any.
func (g *Gate) enter(c *Conn) (victim *Conn, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.open >= g.limits.most() && g.unidentified.n+g.spare.n == 0 && g.life.Err() == nil {
		g.full = true
		if g.refused != nil {
			return nil, g.noPlace()
		}
		g.freed.Wait()
	}
	if g.life.Err() != nil {
		return nil, net.ErrClosed
	}
	g.open++
	g.unidentified.add(c)
	among := g.crowded()
	if among == nil {
		return nil, nil
	}
	victim = among.next()
	g.remove(victim)
	victim.displaced = true
	g.displaced++
	g.displacedAt = time.Now()
	return victim, nil
}

// crowded returns the candidates of which one has to be displaced, or nil. The newest connection
// is an unidentified one, and isn't displaced if it is the only one.
func (g *Gate) crowded() *candidates {
	switch limit := g.limits.Unidentified; {
	case limit > 0 && g.unidentified.n > limit:
		return &g.unidentified
	case g.open <= g.limits.most():
		return nil
	case g.unidentified.n > 1:
		return &g.unidentified
	default:
		return &g.spare
	}
}

// remove ends a connection's part in the gate. The lock is held.
func (g *Gate) remove(c *Conn) {
	c.left = true
	c.settle()
	g.open--
	g.free()
}

// free says that there is a place. The lock is held.
func (g *Gate) free() {
	g.full = false
	g.freed.Signal()
}

func (g *Gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.end()
	g.freed.Broadcast()
}

// Conn is a connection that a [Gate] has admitted. A nil Conn is one that no gate knows; its state
// can't be changed.
type Conn struct {
	net.Conn
	gate *Gate

	// The gate's lock guards the rest. peer and at are nil while the connection is kept.
	peer      *peer
	at        *list.Element
	left      bool
	displaced bool
}

// Keep says that the peer has identified itself. Until [Conn.Spare] the connection isn't
// displaced. Keep returns false if it was before.
func (c *Conn) Keep() bool {
	if c == nil {
		return true
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if !c.displaced {
		c.settle()
	}
	return !c.displaced
}

// Spare says that the peer is known and was served: the connection is displaced if there is no
// unidentified one.
func (c *Conn) Spare() {
	if c == nil {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if !c.left {
		c.settle()
		c.gate.spare.add(c)
		c.gate.free()
	}
}

// settle makes the connection no candidate. The gate's lock is held.
func (c *Conn) settle() {
	if c.peer != nil {
		c.peer.among.remove(c)
	}
}

// Displaced reports whether the gate has closed the connection for a newer one.
func (c *Conn) Displaced() bool {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	return c.displaced
}

// Close closes the connection and then gives its place free. It returns nil if the connection was
// closed before.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.left {
		return nil
	}
	c.gate.remove(c)
	return err
}

// CloseWrite closes the sending side, if the connection has one.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
