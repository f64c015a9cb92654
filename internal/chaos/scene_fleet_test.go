package chaos

import (
	"fmt"
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// What real fleets need happens to a scene here: requests, commands with a time, and groups.

// publishRequest publishes a request that the device reads.
func (s *scene) publishRequest(d *sceneDevice) int {
	place := s.publish(d)
	s.h.Commands[place].WantsAnswer = true
	s.read(d, place)
	return place
}

// answer adds the device's answer to the command.
func (s *scene) answer(d *sceneDevice, place int) {
	id := s.h.Commands[place].ID
	s.h.Answers = append(s.h.Answers, Answer{ID: id, Device: d.name, Connection: d.connection, Text: "ok " + id, Time: s.tick()})
}

// request publishes a request. The device answers in time, too late, or not at all.
func (s *scene) request(d *sceneDevice) {
	place := s.publishRequest(d)
	switch s.draw(3) {
	case 0:
		s.answer(d, place)
		s.result(d, place, device.StateAnswered, 1)
	case 1:
		s.result(d, place, device.StateNoReply, 1)
		s.answer(d, place)
	default:
		s.result(d, place, device.StateNoReply, 1)
	}
}

// requestWithoutPattern lets the device answer so late that its answers are taken for those to the
// next two requests.
func (s *scene) requestWithoutPattern(d *sceneDevice) {
	if s.h.Answering.Pattern {
		return
	}
	first := s.publishRequest(d)
	s.now = s.now.Add(s.h.Answering.Timeout)
	if s.draw(3) == 1 { // that there was no answer is lost with the host
		second := s.publishRequest(d)
		s.answer(d, first)
		s.result(d, second, device.StateAnswered, 1)
		s.kill(1)
		s.result(d, first, device.StateUnknown, 1)
		return
	}
	s.result(d, first, device.StateNoReply, 1)
	s.now = s.now.Add(s.h.Answering.Timeout)
	second := s.publishRequest(d)
	s.answer(d, first)
	s.result(d, second, device.StateAnswered, 1)
	third := s.publishRequest(d)
	s.answer(d, second)
	s.result(d, third, device.StateAnswered, 1)
	s.answer(d, third)
}

// expiring publishes a command with a time limit. It is read at the last moment, or later because
// a process was frozen.
func (s *scene) expiring(d *sceneDevice) {
	place := s.publish(d)
	c := &s.h.Commands[place]
	c.TTL = time.Second
	if !d.online || s.draw(2) == 0 {
		s.deliver(d, place, 1)
		return
	}
	s.fault("host frozen", func() { s.now = c.Sent.Add(5 * c.TTL) }).Frozen = true
	s.deliver(d, place, 1)
}

// group publishes a command to about every third device, and at least to one.
func (s *scene) group() {
	var members []*sceneDevice
	for i, d := range s.devices {
		if i == 0 || s.draw(3) == 0 {
			members = append(members, d)
		}
	}
	places := s.publishGroup(members)
	for range 1 + s.draw(2) { // repeated
		s.expanded(places)
	}
	began := s.now
	for i, d := range members {
		if s.draw(5) == 0 {
			s.kill(1)
		}
		s.deliver(d, places[i], 1)
	}
	killed := slices.ContainsFunc(s.h.Faults, func(f Fault) bool { return f.Killed && f.Begin.After(began) })
	if killed && s.draw(2) == 0 {
		return // it is forgotten
	}
	if killed && s.draw(2) == 0 {
		s.summary(places, device.GroupUnfinished, 1+s.draw(len(places)))
		s.h.Reports[len(s.h.Reports)-1].Devices = 0 // nobody says how many there are
		return
	}
	for range 1 + s.draw(2) {
		s.summary(places, device.GroupFinished, len(places))
	}
}

// publishGroup publishes one command to these devices.
func (s *scene) publishGroup(members []*sceneDevice) []int {
	s.groups++
	id, sent := fmt.Sprintf("g/%d", s.groups), s.tick()
	var places []int
	for _, d := range members {
		place := s.publish(d)
		c := &s.h.Commands[place]
		c.ID, c.Group, c.Sent = id, id, sent
		places = append(places, place)
	}
	return places
}

// report adds a report about the group of those commands.
func (s *scene) report(places []int, r device.GroupReport) {
	c := &s.h.Commands[places[0]]
	r.ID, r.Group, r.Host, r.Time = c.ID, c.Group, "gateway", s.now
	s.h.Reports = append(s.h.Reports, GroupReport{r, s.tick()})
}

func (s *scene) expanded(places []int) {
	s.report(places, device.GroupReport{State: device.GroupExpanded, Devices: len(places)})
}

// summary adds a summary that counts the results of the last count commands of the group.
func (s *scene) summary(places []int, state device.GroupState, count int) {
	r := device.GroupReport{State: state, Devices: len(places), States: map[device.State]int{}, Unfinished: len(places) - count}
	for _, place := range places[len(places)-count:] {
		c := &s.h.Commands[place]
		at := slices.IndexFunc(s.h.Results, func(r Result) bool { return r.ID == c.ID && r.Device == c.Device && r.State.Terminal() })
		r.States[s.h.Results[at].State]++
	}
	s.report(places, r)
}
