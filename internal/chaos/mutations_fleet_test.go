package chaos

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// fleetHistory returns a good history with requests, commands with a time limit, and groups.
func fleetHistory() *History {
	s := newScene(3, func(int) int { return 0 })
	a, b, c := s.devices[0], s.devices[1], s.devices[2]
	ask := func(d *sceneDevice) {
		place := s.publishRequest(d)
		s.answer(d, place)
		s.result(d, place, device.StateAnswered, 1)
	}
	ask(a)              // a/1
	s.send(a)           // a/2
	ask(a)              // a/3
	s.publishRequest(b) // b/1, to which it says nothing in time
	s.result(b, 3, device.StateNoReply, 1)
	s.answer(b, 3)

	inTime := s.publish(b) // b/2
	s.h.Commands[inTime].TTL = time.Second
	s.deliver(b, inTime, 1)

	north := s.publishGroup([]*sceneDevice{a, b, c}) // g/1
	s.expanded(north)
	s.deliver(a, north[0], 1)
	s.deliver(c, north[2], 1)
	s.disconnect(b, device.ClientClosed)
	s.deliver(b, north[1], 1)
	s.summary(north, device.GroupFinished, 3)
	s.connect(b)
	s.now = s.now.Add(maxSummaryDelay)

	south := s.publishGroup([]*sceneDevice{a, c}) // g/2
	s.expanded(south)
	s.deliver(a, south[0], 1)
	s.kill(1)
	s.deliver(c, south[1], 1)
	s.summary(south, device.GroupUnfinished, 1)
	return s.end()
}

// resultOf returns the result of the command with the id for the device.
func resultOf(h *History, id, name string) *Result {
	return &h.Results[slices.IndexFunc(h.Results, func(r Result) bool { return r.ID == id && r.Device == name })]
}

// lastReportOf returns the last report about a group.
func lastReportOf(h *History, id string) *GroupReport {
	for i := range slices.Backward(h.Reports) {
		if h.Reports[i].ID == id {
			return &h.Reports[i]
		}
	}
	return nil
}

// delayRead moves the read of the command's line to that time after the command's time limit.
func delayRead(h *History, id string, later time.Duration) {
	c := command(h, id)
	read(h, id).Time = c.Sent.Add(c.TTL + later)
}

// fleetMutations each break one promise of fleetHistory.
var fleetMutations = []mutation{
	{
		name:   "a line after its time",
		mutate: func(h *History) { delayRead(h, "b/2", maxReadDelay+time.Millisecond) },
		rule:   RuleExpiry, id: "b/2", what: "the device read it 1.001s after its time was over",
		story: []string{
			"+0.003s b connected, epoch 1795403045005, seq 1",
			"+0.026s published to b as its number 2, at-least-once, to be written before +1.026s: confirmed",
			"+0.029s result sent from gateway: attempt 1, epoch 1795403045005, decided at +0.028s",
			"+0.040s b disconnected (client_closed), epoch 1795403045005, seq 2",
			"+1.054s fault host killed until +1.255s, which killed the host with at most 1 commands in flight",
			"+2.027s read by b on its connection 1",
		},
	},
	{
		name: "a line after its time, and only long before that a process stood still",
		mutate: func(h *History) {
			delayRead(h, "b/2", 5*time.Second)
			sent := command(h, "b/2").Sent
			h.Faults = append(h.Faults, Fault{Name: "host frozen", Begin: sent, End: sent.Add(3 * time.Second), Frozen: true})
		},
		rule: RuleExpiry, id: "b/2", what: "the device read it 5s after its time was over",
	},
	{
		name:   "the answer to another command",
		mutate: func(h *History) { result(h, "a/3").Reply = []byte("ok a/1") },
		rule:   RuleAnswers, id: "a/3", what: `its result is answered with "ok a/1", which isn't the device's answer to it`,
		story: []string{
			"+0.001s a connected, epoch 1795403045003, seq 1",
			"+0.016s published to a as its number 3, at-least-once, a request: confirmed",
			"+0.017s read by a on its connection 1",
			"+0.018s answered by a on its connection 1: ok a/3",
			"+0.020s result answered from gateway: attempt 1, epoch 1795403045003, decided at +0.019s: ok a/1",
		},
	},
	{
		name: "the answer to another command, which came late but not late enough",
		mutate: func(h *History) {
			h.Answering.Pattern = false
			result(h, "a/1").State = device.StateNoReply
			result(h, "a/3").Reply = []byte("ok a/1")
		},
		rule: RuleAnswers, id: "a/3", what: `its result is answered with "ok a/1", which isn't the device's answer to it`,
	},
	{
		name:   "an answer of another device",
		mutate: func(h *History) { result(h, "a/3").Reply = []byte("ok b/1") },
		rule:   RuleAnswers, id: "a/3", what: `its result is answered with "ok b/1", which isn't the device's answer to it`,
	},
	{
		name:   "an answer that nobody gave",
		mutate: func(h *History) { h.Answers = h.Answers[1:] },
		rule:   RuleAnswers, id: "a/1", what: `its result is answered with "ok a/1", which isn't the device's answer to it`,
	},
	{
		name:   "answered and didn't ask",
		mutate: func(h *History) { command(h, "a/1").WantsAnswer = false },
		rule:   RuleAnswers, id: "a/1", what: "its result is answered, and it isn't a request",
	},
	{
		name:   "no reply and didn't ask",
		mutate: func(h *History) { result(h, "a/2").State = device.StateNoReply },
		rule:   RuleAnswers, id: "a/2", what: "its result is no-reply, and it isn't a request",
	},
	{
		name:   "asked and only sent",
		mutate: func(h *History) { result(h, "b/1").State = device.StateSent },
		rule:   RuleAnswers, id: "b/1", what: "its result is sent, and it is a request",
	},
	{
		name: "one of a group has no result",
		mutate: func(h *History) {
			h.Results = slices.DeleteFunc(h.Results, func(r Result) bool { return r.ID == "g/1" && r.Device == "c" })
		},
		rule: RuleOneResult, id: "g/1", what: "the broker confirmed it, and it has no result",
		story: []string{
			"+0.030s published to c as its number 1 with all of group g/1, at-least-once: confirmed",
			"+0.038s read by c on its connection 1",
			"+1.054s fault host killed until +1.255s, which killed the host with at most 1 commands in flight",
		},
	},
	{
		name: "one of a group has two results",
		mutate: func(h *History) {
			r := *resultOf(h, "g/1", "b")
			r.Body, r.State = "", device.StateUnknown
			h.Results = append(h.Results, r)
		},
		rule: RuleOneResult, id: "g/1", what: "it has 2 different results: offline in attempt 1, unknown in attempt 1",
	},
	{
		name: "one of a group at a device that isn't in it",
		mutate: func(h *History) {
			h.Reads = append(h.Reads, Read{ID: "g/2", Device: "b", Connection: 3, Time: h.End.Settled})
		},
		rule: RuleAddressed, id: "g/2", what: "the device read a command for a",
	},
	{
		name:   "a result that doesn't name its group",
		mutate: func(h *History) { resultOf(h, "g/1", "c").Group = "" },
		rule:   RuleGroups, id: "g/1", what: `its result is of the group "", and it is of "g/1"`,
	},
	{
		name:   "a summary that counts wrong",
		mutate: func(h *History) { lastReportOf(h, "g/1").States = map[device.State]int{device.StateSent: 3} },
		rule:   RuleGroups, id: "g/1", what: "its summary has 3 results that are sent, and there are 2",
		story: []string{
			"+0.030s published to a as its number 4 with all of group g/1, at-least-once: confirmed",
			"+0.034s expanded from gateway: 3 devices, map[], 0 unfinished",
			"+0.037s a result sent from gateway: attempt 1, epoch 1795403045003, decided at +0.036s",
			"+0.040s c result sent from gateway: attempt 1, epoch 1795403045007, decided at +0.039s",
			"+0.043s b result offline from gateway: attempt 1, decided at +0.042s",
			"+0.044s finished from gateway: 3 devices, map[sent:3], 0 unfinished",
			"+1.054s fault host killed until +1.255s, which killed the host with at most 1 commands in flight",
		},
	},
	{
		name: "a summary that counts too few",
		mutate: func(h *History) {
			r := lastReportOf(h, "g/1")
			r.States, r.Unfinished = map[device.State]int{device.StateSent: 2}, 1
		},
		rule: RuleGroups, id: "g/1", what: "its summary has map[sent:2], and its results are map[offline:1 sent:2]",
	},
	{
		name:   "an unfinished summary that doesn't come to its number of devices",
		mutate: func(h *History) { lastReportOf(h, "g/2").Unfinished = 0 },
		rule:   RuleGroups, id: "g/2", what: "its summary has 1 results and 0 unfinished, and it has 2 devices",
	},
	{
		name:   "expanded to too few",
		mutate: func(h *History) { h.Reports[0].Devices = 2 },
		rule:   RuleGroups, id: "g/1", what: "a report says that it has 2 devices, and it has 3",
	},
	{
		name:   "a group that is rejected",
		mutate: func(h *History) { h.Reports[0].State, h.Reports[0].Detail = device.GroupRejected, "no such thing" },
		rule:   RuleGroups, id: "g/1", what: "it was rejected: no such thing",
	},
	{
		name:   "a group in a state that isn't one",
		mutate: func(h *History) { h.Reports[0].State = "fine" },
		rule:   RuleGroups, id: "g/1", what: `a report has the state "fine", which isn't a state`,
	},
	{
		name:   "nothing says that a group was expanded",
		mutate: func(h *History) { h.Reports = slices.Delete(h.Reports, 0, 1) },
		rule:   RuleGroups, id: "g/1", what: "the broker confirmed it, and nothing says that it was expanded",
	},
	{
		name:   "a summary is lost",
		mutate: func(h *History) { h.Reports = slices.Delete(h.Reports, 1, 2) },
		rule:   RuleGroups, id: "g/1", what: "all of its commands have a result, nothing happened to its host, and it has no summary",
	},
	{
		name:   "a summary of nobody's group",
		mutate: func(h *History) { h.Reports[len(h.Reports)-1].ID = "g/9" },
		rule:   RuleGroups, id: "g/9", what: "a report about a group that was never published",
	},
}
