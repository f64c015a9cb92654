package chaos

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// lostAfter is how long a host may be silent: three heartbeats of 10 s.
const lostAfter = 30 * time.Second

// Presence is which devices are online according to the events. It is computed as docs/messages.md
// asks of a consumer. Events may come in any order and repeatedly. All but the newest event of
// each device and host may be lost.
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
	// heard is when the last event of the host was read.
	heard time.Time
}

// NewPresence returns a Presence without devices and hosts.
func NewPresence() *Presence {
	return &Presence{devices: map[string]deviceState{}, hosts: map[string]*hostState{}}
}

// Apply adds an event that was read at that time. It returns false and changes nothing if a newer
// event is known.
func (p *Presence) Apply(e device.Event, read time.Time) bool {
	h, known := p.hosts[e.Host]
	if !known {
		// The silence of a host counts from the time at which the host is known, not from its
		// first own event.
		h = &hostState{heard: read}
		p.hosts[e.Host] = h
	}
	if e.Type == device.HostEvent {
		if !isNewer(e.Generation, e.Seq, h.generation, h.seq) {
			return false
		}
		h.generation, h.seq, h.heard = e.Generation, e.Seq, read
		return true
	}
	d := p.devices[e.Device]
	if !isNewer(e.Epoch, e.Seq, d.epoch, d.seq) {
		return false
	}
	p.devices[e.Device] = deviceState{e.Online, e.Epoch, e.Seq, e.Host, e.Generation}
	return true
}

// isNewer compares two pairs of numbers, the first number first.
func isNewer(a1, a2, b1, b2 uint64) bool { return a1 > b1 || a1 == b1 && a2 > b2 }

// Online returns the sorted names of the devices that are online at that time. up is when the way
// from the hosts to the consumer was last opened. Silence before up says nothing about a host.
func (p *Presence) Online(at, up time.Time) []string {
	var online []string
	for name, d := range p.devices {
		if d.online && !p.isNodeLost(d, at, up) {
			online = append(online, name)
		}
	}
	slices.Sort(online)
	return online
}

// isNodeLost reports whether the device's host is silent, or is a newer process than the one that
// had the device. The result isn't stored, so (epoch, seq) stays as it is and the next heartbeat
// reverses the loss.
func (p *Presence) isNodeLost(d deviceState, at, up time.Time) bool {
	h := p.hosts[d.host]
	since := h.heard
	if up.After(since) {
		since = up
	}
	return h.generation > d.generation || at.Sub(since) > lostAfter
}
