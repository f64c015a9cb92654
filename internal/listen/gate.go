package listen

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/internal/outage"
)

// pressureTime is how long a listener is under pressure after it has displaced a connection.
const pressureTime = 10 * time.Second

var errFull = errors.New("there is no place for a further connection")

// Limits are what a [Gate] allows.
type Limits struct {
	// Max is the setting max_connections: how many connections may be open. 0 means no limit.
	Max int
	// Share is the listener's share of the file descriptors: see [Shares]. 0 means no limit.
	Share int
	// Unidentified is how many open connections may be unidentified. 0 means all.
	Unidentified int
	// AllowFrom are the networks that may connect. If it is empty, all may.
	AllowFrom []netip.Prefix
	// Balancers are the networks of load balancers. They may connect, too. AllowFrom and
	// PerAddress apply to the devices behind them: see [Conn.SetSource].
	Balancers []netip.Prefix
	// AcceptRate is how many connections a second are admitted. Further ones wait in the kernel. 0
	// means no limit.
	AcceptRate int
	// PerAddress are the limits of each address.
	PerAddress AddressLimits
}

// Gate bounds the number of connections of one listener.
//
// The idea: a stranger who opens many connections mustn't keep devices and back ends out. So the
// gate doesn't refuse a new connection when it is full. It admits the new one and displaces
// another. It chooses the address with the most connections, and closes the oldest connection of
// that address. So a stranger with many connections displaces their own.
//
// A connection is in one of three states:
//
//	unidentified  the host knows only the peer's address; every connection begins in this state
//	kept          the peer has identified itself, and the host serves it
//	spare         the host has served the peer, and the peer waits for nothing
//
// The user of a connection changes the state with [Conn.Keep] and [Conn.Spare]. The gate displaces
// unidentified connections first, and then spare ones.
//
// The invariants: the gate never displaces a kept connection. It displaces an unidentified or
// spare connection only if a limit is exceeded. If all connections are kept, there is no place for
// a new one: see [NewGate].
//
// Gate.mu guards all connections of the gate. Code that has locked it locks no other mutex of this
// program and closes no connection.
type Gate struct {
	limits      Limits
	log         *slog.Logger
	refused     func(net.Conn, error)
	accepting   *outage.Outage
	pressureLog rate.Sometimes
	refusalLog  *rate.Limiter
	accepts     *rate.Limiter // nil: no limit

	// served counts the connections of Serve.
	served sync.WaitGroup
	// life ends when the listener is closed.
	life    context.Context
	endLife context.CancelFunc

	mu           sync.Mutex
	addresses    addresses
	open         int
	unidentified candidates
	spare        candidates
	displaced    int
	displacedAt  time.Time
	// full says that there was no place for the newest connection, and that there still isn't.
	full bool
	// freed is signalled when there may be a place.
	freed sync.Cond
}

// NewGate returns a gate without connections. The gate calls refused with each connection that it
// refuses, and then closes it. The error is a [*Refusal]. If refused is nil, limits must not limit
// addresses. A connection for which there is no place then waits, and the listener accepts no
// further one until it has a place.
func NewGate(limits Limits, log *slog.Logger, refused func(net.Conn, error)) *Gate {
	g := &Gate{
		limits: limits, log: log, refused: refused, accepting: outage.New(log, "accepting connections"),
		pressureLog: rate.Sometimes{Interval: pressureTime}, refusalLog: rate.NewLimiter(refusalLines, refusalBurst),
		addresses: addresses{limits: limits.PerAddress},
	}
	if most := limits.AcceptRate; most > 0 {
		g.accepts = rate.NewLimiter(rate.Limit(most), most)
	}
	g.life, g.endLife = context.WithCancel(context.Background())
	g.freed.L = &g.mu
	return g
}

// total returns how many connections may be open.
func (l Limits) total() int {
	most := math.MaxInt
	for _, limit := range []int{l.Max, l.Share} {
		if limit > 0 {
			most = min(most, limit)
		}
	}
	return most
}

// limitName names the limit that determines total.
func (l Limits) limitName() string {
	if l.Max == l.total() {
		return "max_connections allows"
	}
	return "the limit of open files allows (" + RaiseLimit + ")"
}

// Err returns nil if the listener accepts connections, and otherwise why it doesn't.
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

// noPlace returns the error for a connection for which there is no place. The caller has the lock.
func (g *Gate) noPlace() error {
	fate := "wait"
	if g.refused != nil {
		fate = "are refused"
	}
	return refuse(refusedFull, "%w: all %d that %s are in use; further ones %s until one ends", errFull, g.open, g.limits.limitName(), fate)
}

// Note describes the pressure of the last 10 seconds. It returns "" if there was none.
func (g *Gate) Note() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.displaced == 0 || time.Since(g.displacedAt) > pressureTime {
		return ""
	}
	return fmt.Sprintf("under pressure: new connections displace the oldest of those that haven't identified themselves (%d so far); %d are open, %d of them unidentified",
		g.displaced, g.open, g.unidentified.n)
}

// admit admits an accepted connection, and closes the one that it displaces. It returns nil if
// there is no place.
func (g *Gate) admit(socket net.Conn) *Conn {
	c := &Conn{Conn: socket, gate: g}
	victim, pressure, err := g.admitOrDisplace(c)
	if err != nil {
		if !errors.Is(err, net.ErrClosed) {
			g.refused(socket, err)
		}
		_ = socket.Close() // neither side has sent anything
		return nil
	}
	if pressure {
		g.pressureLog.Do(func() {
			g.log.Warn("the listener is under pressure: the oldest unidentified connections are closed for new ones", "peer", victim.RemoteAddr(), "new", socket.RemoteAddr())
		})
	}
	if victim != nil {
		_ = victim.Conn.Close() // its user gets an error
	}
	return c
}

// admitOrDisplace adds c to the connections. It returns the connection that c displaces, or nil.
// pressure says that a limit of the listener is the reason, and not one of the address.
func (g *Gate) admitOrDisplace(c *Conn) (victim *Conn, pressure bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.life.Err() != nil {
		return nil, false, net.ErrClosed
	}
	if !Contains(g.limits.Balancers, addrOf(c.RemoteAddr())) {
		if victim, err = g.enter(c); err != nil {
			return nil, false, err
		}
	}
	for g.open >= g.limits.total() && g.unidentified.n+g.spare.n == 0 && g.life.Err() == nil {
		g.full = true
		if g.refused != nil {
			g.leaveAddress(c)
			return nil, false, g.noPlace()
		}
		g.freed.Wait()
	}
	if g.life.Err() != nil {
		return nil, false, net.ErrClosed
	}
	g.open++
	g.unidentified.add(c)
	among := g.candidatesToDisplace()
	if among == nil {
		return victim, false, nil
	}
	return g.displace(among), true, nil
}

// displace removes one of the candidates, which the caller closes. The caller has the lock.
func (g *Gate) displace(among *candidates) (victim *Conn) {
	victim = among.nextVictim()
	g.remove(victim)
	victim.displaced = true
	g.displaced++
	g.displacedAt = time.Now()
	return victim
}

// candidatesToDisplace returns the candidates of which one must be displaced, or nil if none must.
// The newest connection is unidentified. If it is the only unidentified one, it isn't displaced.
func (g *Gate) candidatesToDisplace() *candidates {
	switch limit := g.limits.Unidentified; {
	case limit > 0 && g.unidentified.n > limit:
		return &g.unidentified
	case g.open <= g.limits.total():
		return nil
	case g.unidentified.n > 1:
		return &g.unidentified
	default:
		return &g.spare
	}
}

// remove removes a connection from the gate. The caller has the lock.
func (g *Gate) remove(c *Conn) {
	c.left = true
	c.removeCandidate()
	g.leaveAddress(c)
	g.open--
	g.freePlace()
}

// leaveAddress ends the count of c as a connection of its address. The caller has the lock.
func (g *Gate) leaveAddress(c *Conn) {
	if c.address != nil {
		g.addresses.uncountConn(c.address)
		c.address = nil
	}
}

// freePlace records that there may be a place. The caller has the lock.
func (g *Gate) freePlace() {
	g.full = false
	g.freed.Signal()
}

// close ends all waits for a place, because the listener is closed.
func (g *Gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLife()
	g.freed.Broadcast()
}

// Conn is a connection that a [Gate] has admitted. A nil Conn has no gate: Keep and Spare do
// nothing.
type Conn struct {
	net.Conn
	gate *Gate
	// source is the address of a device behind a balancer, or nil.
	source atomic.Pointer[net.TCPAddr]

	// The gate's lock guards the rest. address is nil if the gate doesn't count the connection for
	// its address. peer and element are nil while the connection is kept.
	address   *address
	peer      *peer
	element   *list.Element
	left      bool
	displaced bool
}

// RemoteAddr returns the peer's address. For a device behind a balancer, it is the device's.
func (c *Conn) RemoteAddr() net.Addr {
	if source := c.source.Load(); source != nil {
		return source
	}
	return c.Conn.RemoteAddr()
}

// SetSource records the address of a device behind a balancer, and checks it like the address of a
// new connection. The error is a [*Refusal]. Call it before [Conn.Keep].
func (c *Conn) SetSource(source *net.TCPAddr) error {
	victim, err := c.moveTo(source)
	if victim != nil {
		_ = victim.Conn.Close() // its user gets an error
	}
	return err
}

func (c *Conn) moveTo(source *net.TCPAddr) (victim *Conn, err error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.source.Store(source)
	if c.left { // displaced
		return nil, nil
	}
	c.removeCandidate()
	victim, err = c.gate.enter(c)
	c.gate.unidentified.add(c)
	return victim, err
}

// Keep records that the peer has identified itself. The gate then doesn't displace the connection
// until [Conn.Spare]. Keep returns false if the gate has displaced it before.
func (c *Conn) Keep() bool {
	if c == nil {
		return true
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if !c.displaced {
		c.removeCandidate()
	}
	return !c.displaced
}

// Spare records that the host has served the peer. The gate may then displace the connection, if
// none is unidentified.
func (c *Conn) Spare() {
	if c == nil {
		return
	}
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if !c.left {
		c.removeCandidate()
		c.gate.spare.add(c)
		c.gate.freePlace()
	}
}

// removeCandidate removes the connection from the candidates. The caller has the gate's lock.
func (c *Conn) removeCandidate() {
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

// Close closes the connection and then frees its place. It returns nil if the connection was
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
