package listen

import (
	"container/list"
	"net/netip"
)

// candidates has the connections that may be displaced. Each operation takes constant time.
type candidates struct {
	n     int
	peers map[netip.Addr]*peer
	// bySize[i] lists the peers with i+1 connections. The first peer of a list has been in it for
	// the longest time. The last list isn't empty.
	bySize []*list.List
}

// peer has the candidates of one address.
type peer struct {
	among   *candidates
	addr    netip.Addr
	conns   list.List     // of *Conn, the oldest in front
	element *list.Element // in among.bySize
}

func (s *candidates) add(c *Conn) {
	addr := Network(addrOf(c.RemoteAddr()))
	p := s.peers[addr]
	if p == nil {
		p = &peer{among: s, addr: addr}
		if s.peers == nil {
			s.peers = map[netip.Addr]*peer{}
		}
		s.peers[addr] = p
	}
	c.peer, c.element = p, p.conns.PushBack(c)
	s.n++
	s.updateSize(p, p.conns.Len()-1)
}

func (s *candidates) remove(c *Conn) {
	p := c.peer
	p.conns.Remove(c.element)
	c.peer, c.element = nil, nil
	s.n--
	s.updateSize(p, p.conns.Len()+1)
}

// updateSize moves a peer to the list for its number of connections. before is the number that it
// had.
func (s *candidates) updateSize(p *peer, before int) {
	if before > 0 {
		s.bySize[before-1].Remove(p.element)
	}
	if n := p.conns.Len(); n > 0 {
		if n > len(s.bySize) {
			s.bySize = append(s.bySize, list.New())
		}
		p.element = s.bySize[n-1].PushBack(p)
	} else {
		delete(s.peers, p.addr)
	}
	if last := len(s.bySize) - 1; s.bySize[last].Len() == 0 {
		s.bySize = s.bySize[:last] // the peer is in a list with a lower index, or gone
	}
}

// nextVictim returns the candidate to displace: the oldest connection of the peer with the most
// candidates. There must be a candidate.
func (s *candidates) nextVictim() *Conn {
	p := s.bySize[len(s.bySize)-1].Front().Value.(*peer)
	return p.conns.Front().Value.(*Conn)
}
