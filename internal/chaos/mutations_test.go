package chaos

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// incidentHistory returns a good history with a bit of everything. Its times are 1 ms apart,
// except for what takes longer.
func incidentHistory() *History {
	s := newScene(3, func(int) int { return 0 })
	a, b, c := s.devices[0], s.devices[1], s.devices[2]
	for range 3 {
		s.send(a) // a/1 to a/3
	}
	s.send(b) // b/1
	s.repeatResult()

	a4, a5 := s.publish(a), s.publish(a)
	b2 := s.publish(b)
	s.h.Commands[b2].Mode = device.AtMostOnce
	s.read(a, a4)
	s.read(b, b2)
	s.kill(3)
	s.deliver(a, a4, 2)
	s.deliver(a, a5, 1)
	s.deliver(b, b2, 2)

	s.send(c)    // c/1
	s.cut(c)     // c/2 was sent and not read
	s.send(c)    // c/3 finds it offline
	s.connect(c) // and again
	s.send(b)    // b/3
	s.disconnect(b, device.ClientClosed)
	s.connect(b)
	s.send(b) // b/4
	s.send(b) // b/5
	s.h.Commands[s.publish(b)].Malformed = true
	s.h.End.Poison = []string{"b/6"}
	s.h.Commands[s.publish(c)].Confirmed = false // c/4 is lost
	s.disconnect(a, device.IdleTimeout)
	return s.end()
}

// What follows finds its way in a history, to change it.

// The following functions find parts of a history and change them.
//
// command returns the command with the id.
func command(h *History, id string) *Command {
	return &h.Commands[slices.IndexFunc(h.Commands, func(c Command) bool { return c.ID == id })]
}

func result(h *History, id string) *Result {
	return &h.Results[slices.IndexFunc(h.Results, func(r Result) bool { return r.ID == id })]
}

func read(h *History, id string) *Read {
	return &h.Reads[slices.IndexFunc(h.Reads, func(r Read) bool { return r.ID == id })]
}

func removeRead(h *History, id string) {
	h.Reads = slices.DeleteFunc(h.Reads, func(r Read) bool { return r.ID == id })
}

// addRead adds a read of the command that long after its first read, on the last connection of the
// device.
func addRead(h *History, id string, later time.Duration) {
	r := *read(h, id)
	r.Time = r.Time.Add(later)
	for _, other := range h.Reads {
		if other.Device == r.Device {
			r.Connection = other.Connection
		}
	}
	h.Reads = append(h.Reads, r)
}

func removeKill(h *History) {
	for i := range h.Faults {
		h.Faults[i].Killed, h.Faults[i].Cut = false, []string{"a", "b", "c"}
	}
}

// mutation breaks one promise of a history.
type mutation struct {
	name   string
	mutate func(h *History)
	rule   string
	id     string // of the first violation
	what   string // a part of it
	story  []string
}

// mutations each break one promise of incidentHistory.
var mutations = []mutation{
	{
		name: "a result is lost",
		mutate: func(h *History) {
			h.Results = slices.DeleteFunc(h.Results, func(r Result) bool { return r.ID == "a/4" })
		},
		rule: RuleOneResult, id: "a/4", what: "the broker confirmed it, and it has no result",
		story: []string{
			"+0.024s published to a as its number 4, at-least-once: confirmed",
			"+0.027s read by a on its connection 1",
			"+0.029s fault host killed until +0.230s, which killed the host with at most 3 commands in flight",
			"+0.239s read by a on its connection 2",
			"+0.251s fault device cut until +0.255s, connections cut: 1",
		},
	},
	{
		name: "a command is run again after its result",
		mutate: func(h *History) {
			r := *result(h, "a/2")
			r.Body, r.Time = "", r.Time.Add(time.Millisecond)
			h.Results = append(h.Results, r)
		},
		rule: RuleOneResult, id: "a/2", what: "it has 2 different results: sent in attempt 1, sent in attempt 1",
	},
	{
		name: "an undecided command has two results",
		mutate: func(h *History) {
			command(h, "b/5").Confirmed = false
			r := *result(h, "b/5")
			r.Body, r.Attempt = "", 2
			h.Results = append(h.Results, r)
		},
		rule: RuleOneResult, id: "b/5", what: "it has 2 different results: sent in attempt 1, sent in attempt 2",
	},
	{
		name: "a result for nobody's command",
		mutate: func(h *History) {
			r := *result(h, "b/5")
			r.ID = "x/1"
			h.Results = append(h.Results, r, r)
		},
		rule: RuleOneResult, id: "x/1", what: "a result sent for an id that was never published",
		story: []string{
			"+0.276s result sent from gateway: attempt 1, epoch 1795403045269, decided at +0.275s",
			"+0.276s the same result again: sent",
		},
	},
	{
		name:   "a held command is forgotten",
		mutate: func(h *History) { result(h, "c/3").State = device.StateHeld },
		rule:   RuleOneResult, id: "c/3", what: "it was held, and has no terminal result",
	},
	{
		name: "a malformed command has a result",
		mutate: func(h *History) {
			r := *result(h, "c/3")
			r.ID, r.Device, r.State, r.Body = "b/6", "b", device.StateRejected, ""
			h.Results = append(h.Results, r)
		},
		rule: RuleOneResult, id: "b/6", what: "it was malformed",
	},
	{
		name:   "two commands of one id",
		mutate: func(h *History) { h.Commands = append(h.Commands, *command(h, "a/2")) },
		rule:   RuleOneResult, id: "a/2", what: "two commands of this id",
	},
	{
		name:   "sent and not read, and the device closed in order",
		mutate: func(h *History) { removeRead(h, "b/3") },
		rule:   RuleTrueResult, id: "b/3", what: "nothing broke the session of epoch 1795403045237",
		story: []string{
			"+0.235s b connected, epoch 1795403045237, seq 1",
			"+0.262s published to b as its number 3, at-least-once: confirmed",
			"+0.265s result sent from gateway: attempt 1, epoch 1795403045237, decided at +0.264s",
			"+0.265s b disconnected (client_closed), epoch 1795403045237, seq 2",
		},
	},
	{
		name:   "sent and not read, and the device is still connected",
		mutate: func(h *History) { removeRead(h, "b/5") },
		rule:   RuleTrueResult, id: "b/5", what: "its result is sent, the device didn't record it",
	},
	{
		name:   "sent in a session that nobody knows",
		mutate: func(h *History) { removeRead(h, "b/5"); r := result(h, "b/5"); r.Epoch++ },
		rule:   RuleTrueResult, id: "b/5", what: "its result is sent, the device didn't record it",
	},
	{
		name: "answered and not read, though the session broke",
		mutate: func(h *History) {
			c, r := command(h, "c/2"), result(h, "c/2")
			c.WantsAnswer, r.State, r.Reply = true, device.StateAnswered, []byte("ok c/2")
			h.Answers = append(h.Answers, Answer{ID: "c/2", Device: "c", Connection: 2, Text: "ok c/2", Time: r.Time})
		},
		rule: RuleTrueResult, id: "c/2", what: "its result is answered, and the device didn't record it",
	},
	{
		name:   "offline and read",
		mutate: func(h *History) { r := result(h, "b/5"); r.State, r.Epoch = device.StateOffline, 0 },
		rule:   RuleTrueResult, id: "b/5", what: "its result is offline, and the device recorded it at +0.274s",
	},
	{
		name: "a command is superseded by none",
		mutate: func(h *History) {
			command(h, "b/4").Sets, command(h, "a/5").Sets = "x", "x"
			result(h, "b/4").State = device.StateSuperseded
			removeRead(h, "b/4")
		},
		rule: RuleTrueResult, id: "b/4", what: "its result is superseded, and no newer command for the device changes the same setting",
	},
	{
		name:   "busy in the second attempt and read in the first",
		mutate: func(h *History) { result(h, "a/4").State = device.StateBusy },
		rule:   RuleTrueResult, id: "a/4", what: "its result is busy, and the device recorded it",
	},
	{
		name:   "a state that isn't one",
		mutate: func(h *History) { result(h, "b/5").State = "fine" },
		rule:   RuleTrueResult, id: "b/5", what: `its result is "fine"`,
	},
	{
		name: "a line of nobody",
		mutate: func(h *History) {
			h.Reads = append(h.Reads, Read{ID: "junk", Device: "c", Connection: 3, Time: h.End.Settled})
		},
		rule: RuleAddressed, id: "junk", what: "the device read a line that was never published",
		story: []string{
			"+5.281s read by c on its connection 3",
		},
	},
	{
		name: "a command at another device",
		mutate: func(h *History) {
			h.Reads = append(h.Reads, Read{ID: "b/5", Device: "c", Connection: 3, Time: h.End.Settled})
		},
		rule: RuleAddressed, id: "b/5", what: "the device read a command for b",
	},
	{
		name:   "a result of another device",
		mutate: func(h *History) { result(h, "b/5").Device = "c" },
		rule:   RuleAddressed, id: "b/5", what: `its result says that it was for "c"`,
	},
	{
		name: "two commands in the wrong order",
		mutate: func(h *History) {
			r4, r5 := read(h, "b/4"), read(h, "b/5")
			r4.ID, r5.ID = r5.ID, r4.ID
		},
		rule: RuleOrder, id: "b/4", what: "its number is 4, and it was first read after number 5, b/5",
		story: []string{
			"+0.267s b connected, epoch 1795403045269, seq 1",
			"+0.269s b/4 published to b as its number 4, at-least-once: confirmed",
			"+0.270s b/5 read by b on its connection 3",
			"+0.272s b/4 result sent from gateway: attempt 1, epoch 1795403045269, decided at +0.271s",
			"+0.273s b/5 published to b as its number 5, at-least-once: confirmed",
			"+0.274s b/4 read by b on its connection 3",
			"+0.276s b/5 result sent from gateway: attempt 1, epoch 1795403045269, decided at +0.275s",
		},
	},
	{
		name: "the wrong order over two connections",
		mutate: func(h *History) {
			r3, r4 := read(h, "b/3"), read(h, "b/4")
			r3.ID, r4.ID = r4.ID, r3.ID
		},
		rule: RuleOrder, id: "b/3", what: "its number is 3, and it was first read after number 4, b/4",
	},
	{
		name: "the wrong order over two connections, in two looks at both",
		mutate: func(h *History) {
			r3, r4 := read(h, "b/3"), read(h, "b/4")
			r3.ID, r4.ID = r4.ID, r3.ID
			r3.Look, r4.Look = 1, 2
		},
		rule: RuleOrder, id: "b/3", what: "its number is 3, and it was first read after number 4, b/4",
	},
	{
		name: "the wrong order on one connection, in a look at two",
		mutate: func(h *History) {
			r4, r5 := read(h, "b/4"), read(h, "b/5")
			r4.ID, r5.ID = r5.ID, r4.ID
			read(h, "b/3").Look, r4.Look, r5.Look = 1, 1, 1
		},
		rule: RuleOrder, id: "b/4", what: "its number is 4, and it was first read after number 5, b/5",
	},
	{
		name: "the wrong order after a look at two connections, whose first was ahead",
		mutate: func(h *History) {
			r3, r4, r5 := read(h, "b/3"), read(h, "b/4"), read(h, "b/5")
			r3.ID, r4.ID, r5.ID = "b/5", "b/3", "b/4"
			r3.Look, r4.Look = 1, 1
		},
		rule: RuleOrder, id: "b/4", what: "its number is 4, and it was first read after number 5, b/5",
	},
	{
		name:   "the old connection goes on",
		mutate: func(h *History) { read(h, "b/5").Connection = 2 },
		rule:   RuleFenced, id: "b/5", what: "it was read on connection 2 after b/4 had been read on connection 3",
		story: []string{
			"+0.267s b connected, epoch 1795403045269, seq 1",
			"+0.269s b/4 published to b as its number 4, at-least-once: confirmed",
			"+0.270s b/4 read by b on its connection 3",
			"+0.272s b/4 result sent from gateway: attempt 1, epoch 1795403045269, decided at +0.271s",
			"+0.273s b/5 published to b as its number 5, at-least-once: confirmed",
			"+0.274s b/5 read by b on its connection 2",
			"+0.276s b/5 result sent from gateway: attempt 1, epoch 1795403045269, decided at +0.275s",
		},
	},
	{
		name:   "the old epoch goes on",
		mutate: func(h *History) { result(h, "b/5").Epoch = result(h, "b/3").Epoch },
		rule:   RuleFenced, id: "b/5", what: "and b/4, which is before it, in epoch 1795403045269",
	},
	{
		name: "a line twice, and the host wasn't killed",
		mutate: func(h *History) {
			removeKill(h)
			removeRead(h, "a/4")
			result(h, "a/4").State = device.StateUnknown
			addRead(h, "b/5", time.Second)
		},
		rule: RuleDuplicates, id: "b/5", what: "and the host wasn't killed",
		story: []string{
			"+0.267s b connected, epoch 1795403045269, seq 1",
			"+0.273s published to b as its number 5, at-least-once: confirmed",
			"+0.274s read by b on its connection 3",
			"+0.276s result sent from gateway: attempt 1, epoch 1795403045269, decided at +0.275s",
			"+1.274s read by b on its connection 3",
		},
	},
	{
		name:   "a line twice, only after the host was killed",
		mutate: func(h *History) { addRead(h, "b/5", time.Second) },
		rule:   RuleDuplicates, id: "b/5", what: "and it wasn't in flight when the host was killed",
	},
	{
		name:   "a line twice whose result was out when the host was killed",
		mutate: func(h *History) { addRead(h, "b/1", time.Second) },
		rule:   RuleDuplicates, id: "b/1", what: "and it wasn't in flight when the host was killed",
	},
	{
		name:   "a line twice, long after the host was killed",
		mutate: func(h *History) { addRead(h, "a/5", time.Hour) },
		rule:   RuleDuplicates, id: "a/5", what: "and it wasn't in flight when the host was killed",
	},
	{
		name:   "a line twice in the mode at-most-once",
		mutate: func(h *History) { addRead(h, "b/2", 230*time.Millisecond) },
		rule:   RuleDuplicates, id: "b/2", what: "and it was to be written at most once",
	},
	{
		name:   "more lines twice than were in flight",
		mutate: func(h *History) { h.Faults[0].InFlight = 0 },
		rule:   RuleDuplicates, what: "1 lines were read again after the host was killed, and it can have had 0 commands in flight: a/4",
	},
	{
		name:   "an event of a connection is lost",
		mutate: func(h *History) { h.Events = slices.DeleteFunc(h.Events, lastOf(h, "c")) },
		rule:   RulePresence, what: "it is connected, and its events say that it isn't online",
		story: []string{
			"+0.000s host gateway (started), generation 1795403045001, seq 1: applied",
			"+0.006s c connected, epoch 1795403045007, seq 1: applied",
			"+0.029s fault host killed until +0.230s, which killed the host with at most 3 commands in flight",
			"+0.232s host gateway (started), generation 1795403045233, seq 1: applied",
			"+0.238s c connected, epoch 1795403045239, seq 1: applied",
			"+0.251s fault device cut until +0.255s, connections cut: 1, one of them of c",
			"+0.256s c disconnected (connection_lost), epoch 1795403045239, seq 2: applied",
			"+5.280s host gateway (heartbeat), generation 1795403045233, seq 2: applied",
			"+5.281s presence was compared",
		},
	},
	{
		name:   "an event of a lost connection is lost",
		mutate: func(h *History) { h.Events = slices.DeleteFunc(h.Events, lastOf(h, "a")) },
		rule:   RulePresence, what: "its events say that it is online, and it isn't connected",
	},
	{
		name: "an event comes too late",
		mutate: func(h *History) {
			i := slices.IndexFunc(h.Events, lastOf(h, "c"))
			h.Events[i].Read = h.End.Settled.Add(time.Millisecond)
		},
		rule: RulePresence, what: "it is connected, and its events say that it isn't online",
	},
	{
		name:   "a newer process that no device is at",
		mutate: func(h *History) { h.Events[len(h.Events)-1].Generation++ },
		rule:   RulePresence, what: "it is connected, and its events say that it isn't online",
	},
	{
		name: "no more heartbeats",
		mutate: func(h *History) {
			h.End.Settled = h.End.Settled.Add(lostAfter)
		},
		rule: RulePresence, what: "it is connected, and its events say that it isn't online",
	},
	{
		name:   "an unfinished row",
		mutate: func(h *History) { h.End.Unfinished = []string{"a/1"} },
		rule:   RuleLedger, id: "a/1", what: "its row in the ledger is unfinished",
		story: []string{
			"+0.001s a connected, epoch 1795403045003, seq 1",
			"+0.007s published to a as its number 1, at-least-once: confirmed",
			"+0.008s read by a on its connection 1",
			"+0.010s result sent from gateway: attempt 1, epoch 1795403045003, decided at +0.009s",
		},
	},
	{
		name:   "a good command in poison",
		mutate: func(h *History) { h.End.Poison = append(h.End.Poison, "b/5", "b/5") },
		rule:   RulePoison, id: "b/5", what: "it went to poison, and it wasn't malformed",
	},
	{
		name:   "a malformed command that isn't in poison",
		mutate: func(h *History) { h.End.Poison = nil },
		rule:   RulePoison, id: "b/6", what: "it was malformed, and it isn't in poison",
		story: []string{
			"+0.277s published to b as its number 6, at-least-once, malformed: confirmed",
		},
	},
	{
		name:   "goroutines",
		mutate: func(h *History) { h.End.Goroutines = 451 },
		rule:   RuleLeak, what: "451 goroutines at the end, 400 before the load: at most 450 are expected",
	},
	{
		name:   "memory",
		mutate: func(h *History) { h.End.Heap = 73 << 20 },
		rule:   RuleLeak, what: "73.0 MiB of heap at the end, 20.0 MiB before the load: at most 72.0 MiB are expected",
	},
}

// lastOf returns a function that matches the last event of the device.
func lastOf(h *History, name string) func(Event) bool {
	last := ""
	for _, v := range h.Events {
		if v.Device == name {
			last = v.EventID
		}
	}
	return func(v Event) bool { return v.EventID == last }
}
