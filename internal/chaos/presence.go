package chaos

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// lostAfter is how long a host may be silent: three heartbeats of 10 s.
const lostAfter = 30 * time.Second

// Presence is who is online as the events tell it, folded as a consumer should (docs/messages.md): in any order, with repeats, and with all
// but the newest of each device and of each host lost.
type Presence struct {
	devices map[string]deviceState
	hosts   map[string]*hostState
}

type deviceState struct {
	online     bool
	epoch, seq uint64
	host       string
	generation uint64
}

type hostState struct {
	generation, seq uint64
	// heard is when it was last heard of.
	heard time.Time
}

// NewPresence returns one that knows of nothing.
func NewPresence() *Presence {
	return &Presence{devices: map[string]deviceState{}, hosts: map[string]*hostState{}}
}

// Apply takes an event that was read at that time. It reports false if it knew something newer and left it out.
func (p *Presence) Apply(e device.Event, read time.Time) bool {
	h, known := p.hosts[e.Host]
	if !known {
		// A host is silent from when it is known, not from when it is first heard.
		h = &hostState{heard: read}
		p.hosts[e.Host] = h
	}
	if e.Type == device.HostEvent {
		if !after(e.Generation, e.Seq, h.generation, h.seq) {
			return false
		}
		h.generation, h.seq, h.heard = e.Generation, e.Seq, read
		return true
	}
	d := p.devices[e.Device]
	if !after(e.Epoch, e.Seq, d.epoch, d.seq) {
		return false
	}
	p.devices[e.Device] = deviceState{e.Online, e.Epoch, e.Seq, e.Host, e.Generation}
	return true
}

// after compares pairs, the first number first.
func after(a1, a2, b1, b2 uint64) bool { return a1 > b1 || a1 == b1 && a2 > b2 }

// Online returns, sorted, the devices that are online at that time. The consumer's way to the hosts was open since up, so that silence before
// then says nothing of a host.
func (p *Presence) Online(at, up time.Time) []string {
	var online []string
	for name, d := range p.devices {
		if d.online && !p.nodeLost(d, at, up) {
			online = append(online, name)
		}
	}
	slices.Sort(online)
	return online
}

// nodeLost says whether the device's host is silent, or another process than the one that held the device. It is worked out, not kept: so (epoch, seq)
// stays, and the next heartbeat undoes it.
func (p *Presence) nodeLost(d deviceState, at, up time.Time) bool {
	h := p.hosts[d.host]
	since := h.heard
	if up.After(since) {
		since = up
	}
	return h.generation > d.generation || at.Sub(since) > lostAfter
}
