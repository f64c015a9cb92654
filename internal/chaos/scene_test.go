package chaos

import (
	"fmt"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// scene writes the history of a host that keeps its promises, while its caller decides what
// happens to the host.
type scene struct {
	h   *History
	now time.Time
	// draw returns a number from 0 to n-1: how things that may go either way go.
	draw func(n int) int
	// calm is how rare everything is but commands; from 20.
	calm int

	generation, hostSeq uint64
	devices             []*sceneDevice
	groups              int
}

type sceneDevice struct {
	name        string
	connection  int
	epoch, seq  uint64
	connectedAt time.Time
	online      bool
	number      int
}

// sceneStart is the time at which a scene begins. It is far from the zero time.
var sceneStart = time.Date(2026, 11, 23, 3, 4, 5, 0, time.UTC)

// newScene returns a scene with a host and connected devices named a, b, c and so on.
func newScene(devices int, draw func(n int) int) *scene {
	s := &scene{h: &History{Seed: 7, Queue: "quorum", Answering: Answering{Timeout: 2 * time.Second, Pattern: draw(2) == 0}}, now: sceneStart, draw: draw}
	s.h.End.GoroutinesBefore, s.h.End.HeapBefore = 400, 20<<20
	s.start()
	for i := range devices {
		d := &sceneDevice{name: fmt.Sprintf("d%d", i)}
		if devices <= 26 {
			d.name = string(rune('a' + i))
		}
		s.devices = append(s.devices, d)
		s.connect(d)
	}
	return s
}

// tick returns the next point in time.
func (s *scene) tick() time.Time {
	s.now = s.now.Add(time.Duration(1+s.draw(20)) * time.Millisecond)
	return s.now
}

func (s *scene) start() {
	s.generation, s.hostSeq = uint64(s.tick().UnixMilli()), 0
	s.hostEvent(device.HostStarted)
}

func (s *scene) hostEvent(reason device.Reason) {
	s.hostSeq++
	s.event(device.Event{Type: device.HostEvent, Online: reason != device.HostStopped, Reason: reason, Seq: s.hostSeq})
}

func (s *scene) event(v device.Event) {
	v.EventID = fmt.Sprint("e", len(s.h.Events))
	v.Host, v.Generation, v.Time = "gateway", s.generation, s.now
	s.h.Events = append(s.h.Events, Event{v, s.tick()})
}

// connect opens the device's next connection, which replaces an open one.
func (s *scene) connect(d *sceneDevice) {
	if d.online {
		s.disconnect(d, device.Replaced)
	}
	d.connection++
	d.epoch, d.seq, d.online = max(d.epoch+1, uint64(s.tick().UnixMilli())), 1, true
	d.connectedAt = s.now
	s.deviceEvent(d, device.Connected, "")
}

func (s *scene) disconnect(d *sceneDevice, reason device.Reason) {
	d.online = false
	d.seq++
	s.deviceEvent(d, device.Disconnected, reason)
}

func (s *scene) deviceEvent(d *sceneDevice, kind device.EventType, reason device.Reason) {
	s.event(device.Event{
		Type: kind, Device: d.name, Online: d.online, Reason: reason, Epoch: d.epoch, Seq: d.seq, ConnectedAt: d.connectedAt,
	})
}

// publish adds the device's next command, which is confirmed, and returns its place.
func (s *scene) publish(d *sceneDevice) int {
	d.number++
	s.h.Commands = append(s.h.Commands, Command{
		ID: fmt.Sprintf("%s/%d", d.name, d.number), Device: d.name, Mode: device.AtLeastOnce, Number: d.number, Sent: s.tick(), Confirmed: true, Publishes: 1,
	})
	return len(s.h.Commands) - 1
}

// read records that the device read the command.
func (s *scene) read(d *sceneDevice, place int) {
	s.h.Reads = append(s.h.Reads, Read{ID: s.h.Commands[place].ID, Device: d.name, Connection: d.connection, Time: s.tick()})
}

// result adds the command's result. It has an epoch only if the command was written. An answered
// one has the device's last answer.
func (s *scene) result(d *sceneDevice, place int, state device.State, attempt int) {
	c := &s.h.Commands[place]
	r := device.Result{ID: c.ID, Device: d.name, Group: c.Group, State: state, Host: "gateway", Attempt: attempt, Time: s.tick()}
	if state == device.StateAnswered {
		r.Reply, r.Encoding = []byte(s.h.Answers[len(s.h.Answers)-1].Text), device.Text
	}
	switch state {
	case device.StateSent, device.StateAnswered, device.StateNoReply:
		r.Epoch = d.epoch
	default:
	}
	s.h.Results = append(s.h.Results, Result{r, string(r.AppendJSON(nil)), s.tick()})
}

// repeatResult adds the last result once more.
func (s *scene) repeatResult() {
	r := s.h.Results[len(s.h.Results)-1]
	r.Read = s.tick()
	s.h.Results = append(s.h.Results, r)
}

// deliver handles a command completely. The result depends on whether the device is connected.
func (s *scene) deliver(d *sceneDevice, place, attempt int) {
	switch {
	case attempt > 1 && s.h.Commands[place].Mode == device.AtMostOnce:
		s.result(d, place, device.StateUnknown, attempt)
	case !d.online:
		s.result(d, place, device.StateOffline, attempt)
	default:
		s.read(d, place)
		s.result(d, place, device.StateSent, attempt)
	}
}

// send publishes and delivers the device's next command.
func (s *scene) send(d *sceneDevice) int {
	place := s.publish(d)
	s.deliver(d, place, 1)
	return place
}

// fault adds a fault that lasts while do runs.
func (s *scene) fault(name string, do func()) *Fault {
	f := Fault{Name: name, Begin: s.tick()}
	do()
	f.End = s.tick()
	s.h.Faults = append(s.h.Faults, f)
	return &s.h.Faults[len(s.h.Faults)-1]
}

// kill ends the host's process and starts another one. The devices reconnect.
func (s *scene) kill(inFlight int) {
	back := make([]*sceneDevice, 0, len(s.devices))
	f := s.fault("host killed", func() {
		for _, d := range s.devices {
			if d.online {
				d.online = false
				back = append(back, d)
			}
		}
		s.now = s.now.Add(200 * time.Millisecond)
	})
	f.Killed, f.InFlight = true, inFlight
	s.start()
	for _, d := range back {
		s.connect(d)
	}
}

// stop ends the host's process in order and starts another one.
func (s *scene) stop() { s.stopAs(Stop{}) }

// stopAs is stop with a Stop whose times are filled in.
func (s *scene) stopAs(stop Stop) {
	var back []*sceneDevice
	s.fault("host stopped", func() {
		stop.Begin = s.tick()
		for _, d := range s.devices {
			if d.online {
				s.disconnect(d, device.ServerShutdown)
				back = append(back, d)
			}
		}
		s.hostEvent(device.HostStopped)
		stop.End = s.tick()
		s.h.Stops = append(s.h.Stops, stop)
		s.start()
	})
	for _, d := range back {
		s.connect(d)
	}
}

// cut breaks the device's connection. The device doesn't read the last command that was sent.
func (s *scene) cut(d *sceneDevice) {
	f := s.fault("device cut", func() { s.result(d, s.publish(d), device.StateSent, 1) })
	f.Cut = []string{d.name}
	s.disconnect(d, device.ConnectionLost)
}

// end fills in the end of the history and returns it.
func (s *scene) end() *History {
	s.now = s.now.Add(5 * time.Second)
	s.hostEvent(device.HostHeartbeat)
	for _, d := range s.devices {
		if d.online {
			s.h.End.Online = append(s.h.End.Online, d.name)
		}
	}
	s.h.End.Settled = s.tick()
	s.h.End.Goroutines, s.h.End.Heap = 410, 24<<20
	return s.h
}

// randomHistory returns a history with n random things in it.
func randomHistory(devices, happenings, calm int, draw func(n int) int) *History {
	s := newScene(devices, draw)
	s.calm = calm
	for range happenings {
		s.doSomething(s.devices[draw(len(s.devices))])
	}
	return s.end()
}

// doSomething makes one random thing happen, to the device or to all. Most often it is a command.
func (s *scene) doSomething(d *sceneDevice) {
	switch s.draw(s.calm) {
	case 0:
		s.connect(d)
	case 1:
		if d.online {
			s.disconnect(d, device.ClientClosed)
		}
	case 2:
		if d.online {
			s.cut(d)
		}
	case 3:
		s.killInFlight()
	case 4:
		s.stop()
	case 5:
		s.hostEvent(device.HostHeartbeat)
	case 6:
		s.refuseCommand(d)
	case 7:
		s.publishUndecided(d)
	case 8:
		s.loseSessionEnd(d)
	case 9:
		s.lostOnce(d)
	case 10:
		place := s.publish(d)
		s.h.Commands[place].Malformed = true
		for range 1 + s.draw(2) {
			s.h.End.Poison = append(s.h.End.Poison, s.h.Commands[place].ID)
		}
	case 11:
		place := s.publish(d)
		s.result(d, place, device.StateHeld, 1)
		s.deliver(d, place, 1)
	case 12:
		if v := s.h.Events[s.draw(len(s.h.Events))]; v.Device != "" { // repeated, late
			v.Read = s.tick()
			s.h.Events = append(s.h.Events, v)
		}
	case 13:
		s.endInCommand(d)
	case 14:
		if d.online {
			s.request(d)
		}
	case 16:
		if d.online {
			s.requestWithoutPattern(d)
		}
	case 17:
		s.group()
	case 18:
		s.expiring(d)
	case 19:
		s.expiresAtBroker(d)
	case 15:
		s.send(d)
		s.repeatResult()
	default:
		place := s.send(d)
		if s.draw(4) == 0 {
			s.h.Commands[place].Mode = device.AtMostOnce
		}
	}
}

// endInCommand ends a session in the middle of a command.
func (s *scene) endInCommand(d *sceneDevice) {
	if !d.online {
		return
	}
	place := s.publish(d)
	if s.draw(2) == 0 {
		s.read(d, place)
	}
	s.disconnect(d, device.ConnectionLost)
	s.result(d, place, device.StateUnknown, 1)
}

// refuseCommand ends a command without a byte written.
func (s *scene) refuseCommand(d *sceneDevice) {
	states := []device.State{
		device.StateRejected, device.StateUnknownDevice, device.StateSuperseded, device.StateExpired, device.StateBusy,
	}
	state := states[s.draw(len(states))]
	place := s.publish(d)
	if state == device.StateExpired {
		s.h.Commands[place].TTL = time.Millisecond // less than until the result
	}
	s.result(d, place, state, 1)
	if state == device.StateSuperseded {
		newer := s.publish(d)
		s.h.Commands[place].Sets, s.h.Commands[newer].Sets = "setpoint", "setpoint"
		s.deliver(d, newer, 1)
	}
}

// publishUndecided publishes a command whose confirm doesn't come.
func (s *scene) publishUndecided(d *sceneDevice) {
	place := s.publish(d)
	c := &s.h.Commands[place]
	switch s.draw(4) {
	case 0: // it is lost
		c.Confirmed = false
	case 1: // it was in the queue nevertheless
		c.Confirmed = false
		s.deliver(d, place, 1)
	case 2: // so were both
		c.Publishes = 2
		s.deliver(d, place, 1)
		s.repeatResult()
	default: // the second is behind a later one
		c.Publishes = 2
		s.send(d)
		s.deliver(d, place, 1)
	}
}

// loseSessionEnd reconnects the device while the broker is down, so that no event tells of the end
// of its first session.
func (s *scene) loseSessionEnd(d *sceneDevice) {
	if !d.online {
		return
	}
	s.fault("broker killed", func() {
		s.result(d, s.publish(d), device.StateSent, 1)
		d.online = false
		s.connect(d)
	})
}

// killInFlight kills the host in the middle of commands.
func (s *scene) killInFlight() {
	type flight struct {
		d     *sceneDevice
		place int
		begun bool
	}
	var inFlight []flight
	for _, d := range s.devices {
		if !d.online || s.draw(3) == 0 {
			continue
		}
		begun := true
		for range 1 + s.draw(3) {
			f := flight{d, s.publish(d), begun}
			if s.draw(3) == 0 {
				s.h.Commands[f.place].Mode = device.AtMostOnce
			}
			if begun && s.draw(3) > 0 {
				s.read(d, f.place)
			} else {
				begun = false // what is behind a lost one is lost as well
			}
			inFlight = append(inFlight, f)
		}
	}
	s.kill(len(inFlight))
	for _, f := range inFlight {
		attempt := 1
		if f.begun {
			attempt = 2
		}
		s.deliver(f.d, f.place, attempt)
	}
}

// lostOnce has a line lost with its connection, the next read on another, and then the host killed
// before either has a result.
func (s *scene) lostOnce(d *sceneDevice) {
	if !d.online {
		return
	}
	first := s.publish(d)
	s.disconnect(d, device.ConnectionLost)
	s.connect(d)
	second := s.publish(d)
	s.read(d, second)
	s.kill(2)
	s.deliver(d, first, 2)
	s.deliver(d, second, 2)
}
