package chaos

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// expiresAtBroker publishes a command that the broker gives up: before the host has it, or after
// the device read it and the host was killed.
func (s *scene) expiresAtBroker(d *sceneDevice) {
	place := s.publish(d)
	c := &s.h.Commands[place]
	c.Expiration = time.Second
	if !d.online || s.draw(2) == 1 {
		s.givenUp(place, expiredAtBroker)
		return
	}
	s.read(d, place)
	s.kill(1)
	s.givenUp(place, expiredAtBroker)
	s.result(d, place, device.StateUnknown, 1)
}

// givenUp has the broker give the command up when its expiration is over.
func (s *scene) givenUp(place int, reason string) {
	c := &s.h.Commands[place]
	if over := c.Sent.Add(c.Expiration); s.now.Before(over) {
		s.now = over
	}
	s.h.End.DeadLetters = append(s.h.End.DeadLetters, DeadLetter{ID: c.ID, Device: c.Device, Reason: reason, Read: s.tick()})
}

// hostsHistory returns a good history in which commands expire at the broker, the host stops, and
// a second host is started on its store.
func hostsHistory() *History {
	s := newScene(2, func(int) int { return 0 })
	a, b := s.devices[0], s.devices[1]
	s.send(a)            // a/1
	s.expiresAtBroker(a) // a/2 is read and expires
	s.expiresAtBroker(b) // b/1, too
	lost := s.publish(b) // b/2 expires before the host has it
	s.h.Commands[lost].Expiration = time.Second
	s.givenUp(lost, expiredAtBroker)
	late := s.publish(a) // a/3 expires in the host
	s.h.Commands[late].Expiration = time.Second
	s.now = s.now.Add(time.Second)
	s.result(a, late, device.StateExpired, 1)
	s.send(b) // b/3
	s.stop()
	s.send(a)               // a/4
	unrecorded := s.send(b) // b/4
	s.stopAs(Stop{Code: exitUnclean, Output: `1 outcome isn't recorded (id "b/4")`, Unrecorded: []string{"b/4"}})
	second := SecondHost{Name: "second", Begin: s.tick(), First: "process 12", Output: "the store is in use: gateway, process 12"}
	s.send(a) // a/5
	second.End = s.tick()
	s.h.SecondHosts = []SecondHost{second}
	s.h.Results = append(s.h.Results, s.h.Results[slices.IndexFunc(s.h.Results, func(r Result) bool { return r.ID == s.h.Commands[unrecorded].ID })])
	return s.end()
}

// hostMutations each break one promise of hostsHistory.
var hostMutations = []mutation{
	{
		name: "a command that was read and expired at the broker has no result",
		mutate: func(h *History) {
			h.Results = slices.DeleteFunc(h.Results, func(r Result) bool { return r.ID == "a/2" })
		},
		rule: RuleOneResult, id: "a/2", what: "the broker confirmed it, and it has no result",
	},
	{
		name:   "a command that the broker had no end for is lost",
		mutate: func(h *History) { h.End.DeadLetters = nil },
		rule:   RuleOneResult, id: "b/2", what: "the broker confirmed it, and it has no result",
	},
	{
		name: "a command is unknown in calm times",
		mutate: func(h *History) {
			result(h, "a/5").State, result(h, "a/5").Epoch = device.StateUnknown, 0
			h.Events = slices.DeleteFunc(h.Events, func(v Event) bool { return v.Read.After(result(h, "a/5").Read) && v.Device == "a" })
		},
		rule: RuleTrueResult, id: "a/5", what: "its result is unknown, and neither the host nor a session of the device ended in that time",
	},
	{
		name:   "a command expires before its expiration is over",
		mutate: func(h *History) { command(h, "a/3").Expiration = time.Hour },
		rule:   RuleTrueResult, id: "a/3", what: "its result is expired, and its time wasn't over",
	},
	{
		name:   "the broker gives a command up that was delivered too often",
		mutate: func(h *History) { h.End.DeadLetters[0].Reason = "delivery_limit" },
		rule:   RuleBroker, id: "a/2", what: "the broker gave it up: delivery_limit",
		story: []string{
			"+0.009s published to a as its number 2, at-least-once, at the broker until +1.009s: confirmed",
			"+0.010s read by a on its connection 1",
			"+0.011s fault host killed until +0.212s, which killed the host with at most 1 commands in flight",
			"+1.010s given up by the broker: delivery_limit",
			"+1.012s result unknown from gateway: attempt 1, decided at +1.011s",
		},
	},
	{
		name:   "the broker gives a command up whose time has no end",
		mutate: func(h *History) { command(h, "a/2").Expiration = 0 },
		rule:   RuleBroker, id: "a/2", what: "the broker gave it up, expired, and its time has no end",
	},
	{
		name:   "the broker gives a command up too early",
		mutate: func(h *History) { command(h, "a/2").Expiration = time.Hour },
		rule:   RuleBroker, id: "a/2", what: "the broker gave it up, expired, before",
	},
	{
		name: "the broker gives up what nobody published",
		mutate: func(h *History) {
			h.End.DeadLetters = append(h.End.DeadLetters, DeadLetter{ID: "x/1", Reason: expiredAtBroker})
		},
		rule: RuleBroker, id: "x/1", what: "the broker gave up a command that was never published",
	},
	{
		name:   "a stop that left something unrecorded says that it was clean",
		mutate: func(h *History) { h.Stops[1].Code = 0 },
		rule:   RuleStop, id: "b/4", what: "with exit code 0, and the ledger didn't have how it ended",
	},
	{
		name: "a stop that left a command without a result says that it was clean",
		mutate: func(h *History) {
			h.Stops[0].Started = sceneStart
			r := result(h, "b/3")
			r.Time = h.Stops[0].End.Add(time.Millisecond)
			r.Body = ""
		},
		rule: RuleStop, id: "b/3", what: "with exit code 0; the device had read it, and its result came later",
	},
	{
		name:   "a stop that left something doesn't say what",
		mutate: func(h *History) { h.Stops[1].Output = "the stop wasn't clean" },
		rule:   RuleStop, what: "with exit code 3 and didn't name what is left; 1 commands were unrecorded",
	},
	{
		name:   "a stop that left nothing says that it wasn't clean",
		mutate: func(h *History) { h.Stops[0].Code = exitUnclean },
		rule:   RuleStop, what: "with exit code 3 and didn't name what is left; 0 commands were unrecorded",
	},
	{
		name:   "a host that crashes when it is to stop",
		mutate: func(h *History) { h.Stops[0].Code = 2 },
		rule:   RuleStop, what: "with exit code 2, which isn't an exit code of a stop",
	},
	{
		name:   "a second host takes commands",
		mutate: func(h *History) { result(h, "a/5").Host = "second" },
		rule:   RuleSecondHost, id: "a/5", what: "and its result is that host's: sent",
	},
	{
		name: "a second host takes devices",
		mutate: func(h *History) {
			v := h.Events[slices.IndexFunc(h.Events, lastOf(h, "a"))]
			v.Host, v.Epoch, v.Seq = "second", 1, 1
			h.Events = append(h.Events, v)
		},
		rule: RuleSecondHost, what: "and had a session of the device",
	},
	{
		name:   "a second host doesn't name the first",
		mutate: func(h *History) { h.SecondHosts[0].Output = "the store is in use" },
		rule:   RuleSecondHost, what: `and didn't name it as "process 12"`,
	},
}
