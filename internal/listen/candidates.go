package listen

import (
	"container/list"
	"net"
	"net/netip"
)

// candidates are connections that may be displaced. Adding, removing and choosing one takes the
// same time however many there are.
type candidates struct {
	n     int
	peers map[netip.Addr]*peer
	// bySize has at i the peers with i+1 connections. In front is the one that has had so many for
	// the longest time. The last list isn't empty.
	bySize []*list.List
}

// peer is an address with its candidates.
type peer struct {
	among *candidates
	addr  netip.Addr
	conns list.List     // of *Conn, the oldest in front
	at    *list.Element // in among.bySize
}

func (s *candidates) add(c *Conn) {
	addr := peerAddr(c.RemoteAddr())
	p := s.peers[addr]
	if p == nil {
		p = &peer{among: s, addr: addr}
		if s.peers == nil {
			s.peers = map[netip.Addr]*peer{}
		}
		s.peers[addr] = p
	}
	c.peer, c.at = p, p.conns.PushBack(c)
	s.n++
	s.resized(p, p.conns.Len()-1)
}

func (s *candidates) remove(c *Conn) {
	p := c.peer
	p.conns.Remove(c.at)
	c.peer, c.at = nil, nil
	s.n--
	s.resized(p, p.conns.Len()+1)
}

// resized moves a peer to the list of its size.
func (s *candidates) resized(p *peer, before int) {
	if before > 0 {
		s.bySize[before-1].Remove(p.at)
	}
	if n := p.conns.Len(); n > 0 {
		if n > len(s.bySize) {
			s.bySize = append(s.bySize, list.New())
		}
		p.at = s.bySize[n-1].PushBack(p)
	} else {
		delete(s.peers, p.addr)
	}
	if last := len(s.bySize) - 1; s.bySize[last].Len() == 0 {
		s.bySize = s.bySize[:last] // the list below has the peer that left this one, or there is none
	}
}

// next returns the candidate that is displaced next: the oldest of the peer with the most. There
// must be one.
func (s *candidates) next() *Conn {
	p := s.bySize[len(s.bySize)-1].Front().Value.(*peer)
	return p.conns.Front().Value.(*Conn)
}

// peerAddr returns the address by which a peer's connections are counted: of IPv6 the first 64
// bits, as a subscriber has at least that many addresses.
func peerAddr(remote net.Addr) netip.Addr {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		network, _ := addr.Prefix(64) // an IPv6 address has 64 bits
		return network.Addr()
	}
	return addr
}
