package listen

import (
	"container/list"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

const (
	// mostAddresses is how many addresses without a connection a gate remembers. Each takes about
	// 300 bytes, so all of them take 5 MB.
	mostAddresses = 16_384
	// refusalPeriod is the time in which the refusals of an address are counted.
	refusalPeriod = time.Minute
	// refusalLines and refusalBurst limit the log lines about refusals of all addresses together:
	// lines a second, and lines at once.
	refusalLines, refusalBurst = 10, 100
)

// The reasons of a [Refusal] by a gate.
const (
	refusedFull        = "limit"
	refusedNetwork     = "not-allowed"
	refusedBanned      = "address-banned"
	refusedRate        = "address-rate"
	refusedConnections = "address-connections"
)

// AddressLimits are what one address may do. A limit of 0 isn't checked. An IPv6 address counts as
// its first 64 bits.
type AddressLimits struct {
	// Connections is how many connections it may have.
	Connections int
	// Rate is how many connections a second it may open.
	Rate int
	// Refusals is the number of refusals in a minute after which the gate bans the address for the
	// time Ban. Only refusals that are the address's own fault count.
	Refusals int
	Ban      time.Duration
}

// Refusal is the error for a connection that a gate refuses.
type Refusal struct {
	// Reason is a word for the metrics.
	Reason string
	Err    error
}

func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the error behind the refusal.
func (r *Refusal) Unwrap() error { return r.Err }

func refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{reason, fmt.Errorf(format, args...)}
}

// addresses has what a gate remembers of each address: its connections, its refusals and its ban.
// The gate's lock guards it. It has an entry for each address with counted connections, and for
// the mostAddresses others that were used last.
type addresses struct {
	limits AddressLimits
	known  map[netip.Addr]*address
	idle   list.List // the entries without connections, the least recently used in front
}

type address struct {
	key      netip.Addr
	conns    int           // counted only with AddressLimits.Connections
	accepts  *rate.Limiter // nil until it is needed
	element  *list.Element // in addresses.idle, or nil
	banEnds  time.Time
	period   time.Time // when the current refusalPeriod began
	faults   int       // refusals of this period that are the address's own fault
	logged   bool      // a refusal of this period was logged
	unlogged int       // refusals since the last one that was logged
}

// entryOf returns the entry of an address.
func (s *addresses) entryOf(key netip.Addr) *address {
	a := s.known[key]
	switch {
	case a == nil:
		a = &address{key: key}
		if s.known == nil {
			s.known = map[netip.Addr]*address{}
		}
		s.known[key] = a
		s.addIdle(a)
	case a.element != nil:
		s.idle.MoveToBack(a.element)
	}
	return a
}

// addIdle adds an entry to those without connections, and may forget another.
func (s *addresses) addIdle(a *address) {
	a.element = s.idle.PushBack(a)
	if s.idle.Len() > mostAddresses {
		oldest := s.idle.Remove(s.idle.Front()).(*address)
		delete(s.known, oldest.key)
	}
}

// countConn counts a connection of a.
func (s *addresses) countConn(a *address) {
	if a.conns++; a.element != nil {
		s.idle.Remove(a.element)
		a.element = nil
	}
}

// uncountConn ends the count of a connection of a.
func (s *addresses) uncountConn(a *address) {
	if a.conns--; a.conns == 0 {
		s.addIdle(a)
	}
}

// check checks the ban and the rate of an address that opens a connection. It returns the entry of
// the address, or nil if the address has no limits.
func (s *addresses) check(key netip.Addr, now time.Time) (*address, error) {
	if s.limits.Connections == 0 && s.limits.Rate == 0 && s.known[key] == nil {
		return nil, nil
	}
	a := s.entryOf(key)
	if left := a.banEnds.Sub(now); left > 0 {
		return nil, refuse(refusedBanned, "the address is banned for another %s", left.Round(time.Second))
	}
	if most := s.limits.Rate; most > 0 {
		if a.accepts == nil {
			a.accepts = rate.NewLimiter(rate.Limit(most), most)
		}
		if !a.accepts.AllowN(now, 1) {
			return nil, refuse(refusedRate, "the address opens more than per_address.rate, %d connections a second", most)
		}
	}
	return a, nil
}

// noteRefusal counts a refusal of an address. It returns whether the address is banned from now
// on.
func (s *addresses) noteRefusal(key netip.Addr, fault bool, now time.Time) (a *address, banned bool) {
	a = s.entryOf(key)
	if now.Sub(a.period) >= refusalPeriod {
		a.period, a.faults, a.logged = now, 0, false
	}
	a.unlogged++
	if most := s.limits.Refusals; fault && most > 0 {
		if a.faults++; a.faults == most {
			a.banEnds = now.Add(s.limits.Ban)
			return a, true
		}
	}
	return a, false
}

// enter counts c as a connection of its peer, or refuses it. At the limit of the address, c
// displaces the oldest unidentified connection of the same address. The caller has the lock and
// closes the victim.
func (g *Gate) enter(c *Conn) (victim *Conn, err error) {
	peer := addrOf(c.RemoteAddr())
	if len(g.limits.AllowFrom) > 0 && !Contains(g.limits.AllowFrom, peer) {
		return nil, refuse(refusedNetwork, "allow_from has no network with the address")
	}
	a, err := g.addresses.check(Network(peer), time.Now())
	most := g.limits.PerAddress.Connections
	if err != nil || most == 0 {
		return nil, err
	}
	if a.conns >= most {
		p := g.unidentified.peers[a.key]
		if p == nil {
			return nil, refuse(refusedConnections, "the address has %d connections, as many as per_address.connections allows", most)
		}
		victim = p.conns.Front().Value.(*Conn)
		g.remove(victim)
		victim.displaced = true
	}
	g.addresses.countConn(a)
	c.address = a
	return victim, nil
}

// LogRefusal logs that a peer was refused, at most once a minute for each address. The next line
// about the address has the number of refusals that weren't logged. fault says that the peer did
// something wrong: see [Gate.NoteFault].
func (g *Gate) LogRefusal(peer net.Addr, fault bool, reason string, err error) {
	now := time.Now()
	unlogged, log := 0, false
	g.noteRefusal(peer, fault, now, func(a *address) {
		if !a.logged && g.refusalLog.AllowN(now, 1) {
			unlogged, log = a.unlogged-1, true
			a.logged, a.unlogged = true, 0
		}
	})
	if !log {
		return
	}
	attrs := []any{"peer", peer, "reason", reason, "err", err}
	if unlogged > 0 {
		attrs = append(attrs, "unlogged", unlogged)
	}
	g.log.Info("refusing a connection", attrs...)
}

// NoteFault counts a fault of a peer as a refusal of its address. After AddressLimits.Refusals in
// a minute, the gate bans the address, unless it is a balancer's.
func (g *Gate) NoteFault(peer net.Addr) {
	g.noteRefusal(peer, true, time.Now(), func(a *address) { a.unlogged-- })
}

// noteRefusal counts a refusal, calls then while the gate is locked, and logs a ban.
func (g *Gate) noteRefusal(peer net.Addr, fault bool, now time.Time, then func(*address)) {
	addr := addrOf(peer)
	g.mu.Lock()
	a, banned := g.addresses.noteRefusal(Network(addr), fault && !Contains(g.limits.Balancers, addr), now)
	then(a)
	log := banned && g.refusalLog.AllowN(now, 1)
	g.mu.Unlock()
	if log {
		g.log.Warn("banning an address", "address", Network(addr), "for", g.limits.PerAddress.Ban, "refusals", g.limits.PerAddress.Refusals)
	}
}

// Contains reports whether one of the networks has the address.
func Contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// addrOf returns a peer's IP address without its zone. An IPv4 address has its short form.
func addrOf(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// Network returns the address that stands for the network of a peer. For IPv6 it is the first 64
// bits, because an internet provider assigns at least a whole /64 network to a customer.
func Network(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		network, _ := addr.Prefix(64) // an IPv6 address has 64 bits
		return network.Addr()
	}
	return addr
}
