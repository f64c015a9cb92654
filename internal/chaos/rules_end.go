package chaos

import (
	"fmt"
	"slices"
)

// judgePresence computes presence from the events, as docs/messages.md asks of a consumer, and
// compares it with the connections.
func judgePresence(e *evidence) []finding {
	p := NewPresence()
	for i := range e.Events {
		if v := &e.Events[i]; !v.Read.After(e.End.Settled) {
			p.Apply(v.Event, v.Read)
		}
	}
	var found []finding
	told := p.Online(e.End.Settled, e.faults.lastEnd())
	truth := slices.Clone(e.End.Online)
	slices.Sort(truth)
	truth = slices.Compact(truth)
	differ := func(name, what string) {
		found = append(found, finding{device: name, what: what, story: func() []string { return e.presenceStory(name) }})
	}
	for len(told) > 0 || len(truth) > 0 {
		switch {
		case len(truth) == 0 || len(told) > 0 && told[0] < truth[0]:
			differ(told[0], "its events say that it is online, and it isn't connected")
			told = told[1:]
		case len(told) == 0 || truth[0] < told[0]:
			differ(truth[0], "it is connected, and its events say that it isn't online")
			truth = truth[1:]
		default:
			told, truth = told[1:], truth[1:]
		}
	}
	return found
}

// judgeLedger checks the rows that are left in the ledger.
func judgeLedger(e *evidence) []finding {
	var found []finding
	for _, id := range e.End.Unfinished {
		found = append(found, finding{id: id, device: e.deviceOf(id), what: "its row in the ledger is unfinished"})
	}
	return found
}

// judgePoison checks the poison queue. A message may be there twice, because it is published at
// least once.
func judgePoison(e *evidence) []finding {
	var found []finding
	there := make(map[string]bool, len(e.End.Poison))
	for _, id := range e.End.Poison {
		if p, ok := e.firstWithID[id]; !there[id] && (!ok || !e.Commands[p].Malformed) {
			found = append(found, finding{id: id, device: e.deviceOf(id), what: "it went to poison, and it wasn't malformed"})
		}
		there[id] = true
	}
	for i := range e.Commands {
		if c := &e.Commands[i]; c.Malformed && c.Confirmed && !there[c.ID] {
			found = append(found, finding{id: c.ID, device: c.Device, what: "it was malformed, and it isn't in poison"})
		}
	}
	return found
}

// deviceOf returns the device of the command. It returns "" if there is no such command, or if the
// command is for a group.
func (e *evidence) deviceOf(id string) string {
	if p, ok := e.firstWithID[id]; ok && e.Commands[p].Group == "" {
		return e.Commands[p].Device
	}
	return ""
}

// How much more a host may use at the end than before the load: caches and pools that it filled,
// and garbage that isn't collected yet.
const (
	moreGoroutines = 50
	moreHeap       = 32 << 20
	// perCommand is the memory for a command that dedup remembers.
	perCommand = 1 << 10
)

// judgeLeaks checks the host's goroutines and memory at the end.
func judgeLeaks(e *evidence) []finding {
	var found []finding
	if before, now := e.End.GoroutinesBefore, e.End.Goroutines; now > before+moreGoroutines {
		found = append(found, finding{what: fmt.Sprintf("%d goroutines at the end, %d before the load: at most %d are expected", now, before, before+moreGoroutines)})
	}
	before, now := e.End.HeapBefore, e.End.Heap
	if most := 2*before + moreHeap + perCommand*uint64(len(e.Commands)); now > most {
		const mib = 1 << 20
		found = append(found, finding{what: fmt.Sprintf("%.1f MiB of heap at the end, %.1f MiB before the load: at most %.1f MiB are expected",
			float64(now)/mib, float64(before)/mib, float64(most)/mib)})
	}
	return found
}
