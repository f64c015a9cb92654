package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// front follows the reads of a device. It knows the read with the highest number among those
// whose order is known.
type front struct {
	e     *evidence
	last  int // the read before
	ahead int // -1 if there is none, like the others
	// before is what ahead was when a look at two connections began. beside is the highest that
	// the look found on its first connection.
	before, beside int
}

// turn goes to the next read. What the same look found on the other connection doesn't count for
// it: nobody knows which was written first.
func (f *front) turn(read int) {
	if f.last >= 0 {
		next, last := &f.e.Reads[read], &f.e.Reads[f.last]
		switch {
		case next.Look != last.Look || next.Look == 0:
			f.ahead = f.e.higher(f.ahead, f.beside)
			f.before, f.beside = f.ahead, -1
		case next.Connection != last.Connection:
			f.ahead, f.beside = f.before, f.e.higher(f.ahead, f.beside)
		}
	}
	f.last = read
}

// higher returns the read of the higher number.
func (e *evidence) higher(a, b int) int {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	first, _ := e.own(a)
	second, _ := e.own(b)
	if e.Commands[second].Number > e.Commands[first].Number {
		return b
	}
	return a
}

// inOrder judges the order in which commands were read for the first time. Reading one again is for duplicates to judge.
func inOrder(e *evidence) []finding {
	var found []finding
	for _, d := range e.devices {
		f := front{e: e, last: -1, ahead: -1, before: -1, beside: -1}
		for _, i := range d.reads {
			f.turn(i)
			place, ok := e.own(i)
			if !ok || e.lives[place].reads[0] != i {
				continue
			}
			c := &e.Commands[place]
			if f.ahead < 0 {
				f.ahead = i
				continue
			}
			highest, _ := e.own(f.ahead)
			first := &e.Commands[highest]
			if c.Number > first.Number {
				f.ahead = i
				continue
			}
			if placeUnknown(c) || e.lostOnce(d, place, i, f.ahead) {
				continue
			}
			found = append(found, finding{
				id: c.ID, device: d.name, with: []string{first.ID},
				what: fmt.Sprintf("its number is %d, and it was first read after number %d, %s", c.Number, first.Number, first.ID),
			})
		}
	}
	return found
}

// placeUnknown says that the command's place in its queue needn't be that of its number: it was published again, or late, as the broker saw it, or
// comes from a group, by a longer way.
func placeUnknown(c *Command) bool { return !c.Confirmed || c.Publishes > 1 || c.Group != "" }

// lostOnce says whether the command may have been written in its turn, but to a connection that broke before the device read it. After the
// host was killed it is then written again, behind what went through the next connection.
func (e *evidence) lostOnce(d *deviceLog, place, read, ahead int) bool {
	late, before := e.Reads[read].Time, e.Reads[ahead].Time
	r := e.outcome(place)
	if r == nil || r.Attempt < 2 || !e.killed(before, late) {
		return false
	}
	for _, s := range d.sessions {
		if s.broke && !s.end.Before(e.Commands[place].Sent) && !s.end.After(before) {
			return true
		}
	}
	return false
}

// fenced judges that sessions of a device follow each other: by the connections on which lines were read, and by the epochs of results.
func fenced(e *evidence) []finding {
	var found []finding
	for _, d := range e.devices {
		newest := -1 // the first read on the newest connection
		for _, i := range d.reads {
			r := &e.Reads[i]
			switch {
			case newest < 0 || r.Connection > e.Reads[newest].Connection:
				newest = i
			case r.Connection < e.Reads[newest].Connection:
				first := &e.Reads[newest]
				found = append(found, finding{
					id: r.ID, device: d.name, with: []string{first.ID},
					what: fmt.Sprintf("it was read on connection %d after %s had been read on connection %d", r.Connection, first.ID, first.Connection),
				})
			}
		}
		found = append(found, e.fencedEpochs(d)...)
	}
	return found
}

// fencedEpochs judges the epochs of results in the order of the commands. Only what was written through a session counts, and only within
// one attempt: what a crash made to be written again has a newer epoch than what was finished before.
func (e *evidence) fencedEpochs(d *deviceLog) []finding {
	var found []finding
	newest := map[int]*Result{} // by attempt
	for _, place := range d.commands {
		c, r := &e.Commands[place], e.outcome(place)
		if r == nil || r.Epoch == 0 || placeUnknown(c) {
			continue
		}
		switch r.State {
		case device.StateSent, device.StateAnswered, device.StateNoReply:
		default:
			continue
		}
		before := newest[r.Attempt]
		if before == nil || r.Epoch >= before.Epoch {
			newest[r.Attempt] = r
			continue
		}
		found = append(found, finding{
			id: c.ID, device: d.name, with: []string{before.ID},
			what: fmt.Sprintf("it was written in epoch %d, and %s, which is before it, in epoch %d", r.Epoch, before.ID, before.Epoch),
		})
	}
	return found
}

// healing is how long a fault may be felt after it is over.
const healing = 30 * time.Second

// duplicates judges lines that were read more than once. A kill allows that for what the host then had in flight.
func duplicates(e *evidence) []finding {
	kills, allowed := e.kills()
	var found []finding
	var again []string // as far as they are allowed one by one
	for i := range e.Commands {
		c, l := &e.Commands[i], &e.lives[i]
		for n := 1; n < len(l.reads); n++ {
			what := ""
			switch {
			case c.Mode == device.AtMostOnce:
				what = "it was to be written at most once"
			case e.leftBetween(i, n):
				continue
			case len(kills) == 0:
				what = "the host wasn't killed"
			case !e.inFlight(kills, i, n):
				what = "it wasn't in flight when the host was killed"
			default:
				again = append(again, c.ID)
				continue
			}
			found = append(found, finding{
				id: c.ID, device: c.Device,
				what: fmt.Sprintf("the device read it %d times, again at %s, and %s", len(l.reads), e.at(e.Reads[l.reads[n]].Time), what),
			})
			break
		}
	}
	if len(again) > allowed {
		const few = 5
		found = append(found, finding{
			with: again[:min(few, len(again))],
			what: fmt.Sprintf("%d lines were read again after the host was killed, and it can have had %d commands in flight: %s",
				len(again), allowed, strings.Join(again[:min(few, len(again))], ", ")),
		})
	}
	return found
}

// leftBetween says whether a stop before the nth read of the command at that place left it unknown how
// the command ended.
func (e *evidence) leftBetween(place, n int) bool {
	again := e.Reads[e.lives[place].reads[n]].Time
	return slices.ContainsFunc(e.Stops, func(s Stop) bool { return s.leftBy(e.Commands[place].ID) && s.Begin.Before(again) })
}

// kill is a fault that killed the host, and how long it may be felt.
type kill struct {
	Fault
	felt time.Time
}

// kills returns the kills and how many commands were in flight in all of them. A kill is felt as long as faults that follow closely may keep
// the host from writing again what was in flight.
func (e *evidence) kills() (kills []kill, inFlight int) {
	first := 0 // of the kills that are felt as long as the fault that is looked at
	for i, f := range e.faults.faults {
		if i > 0 && f.Begin.After(e.faults.reach[i-1].Add(healing)) {
			first = len(kills)
		}
		if f.Killed {
			kills = append(kills, kill{Fault: f})
			inFlight += f.InFlight
		}
		last := i+1 == len(e.faults.faults) || e.faults.faults[i+1].Begin.After(e.faults.reach[i].Add(healing))
		if last {
			for j := range kills[first:] {
				kills[first+j].felt = e.faults.reach[i].Add(healing)
			}
		}
	}
	return kills, inFlight
}

// inFlight says whether the nth read of the command at that place may come from a kill: the command was there and its result wasn't out, and it was
// written again soon after.
func (e *evidence) inFlight(kills []kill, place, n int) bool {
	l := &e.lives[place]
	before, again := e.Reads[l.reads[n-1]].Time, e.Reads[l.reads[n]].Time
	for _, k := range kills {
		if k.Begin.After(again) {
			break
		}
		there := !e.Commands[place].Sent.After(k.End)
		out := len(l.outcomes) > 0 && e.Results[l.outcomes[0]].Read.Before(k.Begin)
		// What the kernel had is read after the host is gone, so before may be later than the kill.
		if there && !out && !before.After(k.End.Add(healing)) && !again.After(k.felt) {
			return true
		}
	}
	return false
}
