package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports/device"
)

// process is one process of a host, which may have devices.
type process struct {
	host            string
	generation, seq uint64
	devices         map[string]*presenceSession
}

type presenceSession struct{ epoch, seq uint64 }

// cluster records the events of hosts, and knows which devices are really connected.
type cluster struct {
	events    []device.Event
	processes []*process
	epochs    map[string]uint64
}

func (c *cluster) host(p *process, reason device.Reason) {
	p.seq++
	c.events = append(c.events, device.Event{
		Type: device.HostEvent, Host: p.host, Generation: p.generation, Seq: p.seq, Reason: reason, Online: true,
	})
}

func (c *cluster) device(p *process, name string, kind device.EventType) {
	s := p.devices[name]
	s.seq++
	c.events = append(c.events, device.Event{
		Type: kind, Device: name, Online: kind == device.Connected, Host: p.host, Generation: p.generation, Epoch: s.epoch, Seq: s.seq,
	})
}

// restart starts the process again after a kill, of which no event tells.
func (c *cluster) restart(p *process) {
	p.generation++
	p.seq, p.devices = 0, map[string]*presenceSession{}
	c.host(p, device.HostStarted)
}

// connect connects the device to this process, and disconnects it from any other.
func (c *cluster) connect(p *process, name string) {
	for _, other := range c.processes {
		if other.devices[name] != nil {
			c.disconnect(other, name)
		}
	}
	c.epochs[name]++
	p.devices[name] = &presenceSession{epoch: c.epochs[name]}
	c.device(p, name, device.Connected)
}

func (c *cluster) disconnect(p *process, name string) {
	c.device(p, name, device.Disconnected)
	delete(p.devices, name)
}

// truth returns the devices that are connected to a process that isn't dead.
func (c *cluster) truth(dead string) []string {
	var online []string
	for _, p := range c.processes {
		if p.host == dead {
			continue
		}
		for name := range p.devices {
			online = append(online, name)
		}
	}
	slices.Sort(online)
	return online
}

// needed returns which events a consumer must get: the newest of each device and of each host.
func (c *cluster) needed() []bool {
	needed, last := make([]bool, len(c.events)), map[string]int{}
	for i, e := range c.events {
		last[e.Device+"@"+hostOf(e)] = i
	}
	for _, i := range last {
		needed[i] = true
	}
	return needed
}

// hostOf returns the host of a host event. An event of a device may come from any host.
func hostOf(e device.Event) string {
	if e.Type == device.HostEvent {
		return e.Host
	}
	return ""
}

// TestPresenceConverges gives consumers the events of hosts that are killed or silent, and of
// devices that connect, disconnect and move. The events come in any order, some repeatedly, and
// all but the newest may be lost. Presence is correct in the end.
func TestPresenceConverges(t *testing.T) {
	at := sceneStart.Add(time.Hour)
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{epochs: map[string]uint64{}}
		for i := range rapid.IntRange(1, 3).Draw(t, "hosts") {
			p := &process{host: fmt.Sprint("host", i)}
			c.processes = append(c.processes, p)
			c.restart(p)
		}
		for range rapid.IntRange(0, 60).Draw(t, "happenings") {
			p := rapid.SampledFrom(c.processes).Draw(t, "process")
			name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "device")
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				c.restart(p)
			case 1:
				c.host(p, device.HostHeartbeat)
			case 2, 3:
				if p.devices[name] != nil {
					c.disconnect(p, name)
				}
			default:
				c.connect(p, name)
			}
		}
		dead := rapid.SampledFrom([]string{"", "", "host0"}).Draw(t, "dead")

		var stream []device.Event
		for i, needed := range c.needed() {
			copies := rapid.IntRange(0, 3).Draw(t, "copies")
			if needed {
				copies = max(1, copies)
			}
			stream = append(stream, slices.Repeat(c.events[i:i+1], copies)...)
		}
		p := NewPresence()
		for _, e := range rapid.Permutation(stream).Draw(t, "stream") {
			read := at.Add(-lostAfter)
			if e.Host == dead {
				read = read.Add(-time.Nanosecond)
			}
			p.Apply(e, read)
		}
		if diff := cmp.Diff(c.truth(dead), p.Online(at, time.Time{})); diff != "" {
			t.Errorf("online (-truth +events):\n%s", diff)
		}
	})
}

// TestNodeLost loses a host for a while. That doesn't change what is known about its devices.
func TestNodeLost(t *testing.T) {
	p := NewPresence()
	host := func(seq uint64, at time.Duration) {
		p.Apply(device.Event{Type: device.HostEvent, Host: "h", Generation: 1, Seq: seq}, sceneStart.Add(at))
	}
	event := func(online bool, seq uint64, applied bool) {
		t.Helper()
		e := device.Event{Type: device.Connected, Device: "d", Host: "h", Generation: 1, Epoch: 5, Seq: seq, Online: online}
		if p.Apply(e, sceneStart) != applied {
			t.Errorf("seq %d: applied is %t", seq, !applied)
		}
	}
	online := func(at, up time.Duration, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, p.Online(sceneStart.Add(at), sceneStart.Add(up))); diff != "" {
			t.Errorf("online after %s (-want +got):\n%s", at, diff)
		}
	}
	event(true, 3, true)
	online(lostAfter, 0, "d") // it isn't silent for longer than it is known
	online(lostAfter+1, 0)
	host(1, lostAfter)
	online(2*lostAfter, 0, "d")
	online(2*lostAfter+1, 0)
	online(2*lostAfter+1, lostAfter+1, "d") // it couldn't be heard
	event(false, 3, false)
	event(false, 2, false)
	host(1, 3*lostAfter) // an old heartbeat proves nothing
	online(3*lostAfter, 0)
	host(2, 3*lostAfter)
	online(3*lostAfter, 0, "d")
	event(false, 4, true)
	online(3*lostAfter, 0)
}
