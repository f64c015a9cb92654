package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// readOrder goes through the reads of a device in order. It keeps the read with the highest
// command number among the reads whose order is known.
//
// A device sometimes reads two connections at once (a look). Nobody knows which of two lines from
// one look was written first, if they came on different connections. So a line on the second
// connection is compared only with reads before the look.
type readOrder struct {
	e        *evidence
	lastRead int // the read before
	ahead    int // -1 if there is none
	// aheadBefore is the value of ahead at the begin of a look. aheadOnFirst is the highest read
	// that the look found on its first connection. Each is -1 if there is none.
	aheadBefore, aheadOnFirst int
}

// advance goes to the next read. It removes from ahead what the same look found on the other
// connection.
func (f *readOrder) advance(read int) {
	if f.lastRead >= 0 {
		next, last := &f.e.Reads[read], &f.e.Reads[f.lastRead]
		switch {
		case next.Look != last.Look || next.Look == 0:
			f.ahead = f.e.higherRead(f.ahead, f.aheadOnFirst)
			f.aheadBefore, f.aheadOnFirst = f.ahead, -1
		case next.Connection != last.Connection:
			f.ahead, f.aheadOnFirst = f.aheadBefore, f.e.higherRead(f.ahead, f.aheadOnFirst)
		}
	}
	f.lastRead = read
}

// higherRead returns the read whose command has the higher number.
func (e *evidence) higherRead(a, b int) int {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	first, _ := e.commandOfRead(a)
	second, _ := e.commandOfRead(b)
	if e.Commands[second].Number > e.Commands[first].Number {
		return b
	}
	return a
}

// judgeOrder checks the order in which commands were read for the first time. The rule duplicates
// checks later reads.
func judgeOrder(e *evidence) []finding {
	var found []finding
	for _, d := range e.devices {
		f := readOrder{e: e, lastRead: -1, ahead: -1, aheadBefore: -1, aheadOnFirst: -1}
		for _, i := range d.reads {
			f.advance(i)
			place, ok := e.commandOfRead(i)
			if !ok || e.lives[place].reads[0] != i {
				continue
			}
			c := &e.Commands[place]
			if f.ahead < 0 {
				f.ahead = i
				continue
			}
			highest, _ := e.commandOfRead(f.ahead)
			first := &e.Commands[highest]
			if c.Number > first.Number {
				f.ahead = i
				continue
			}
			if mayBeOutOfOrder(c) || e.mayBeWrittenAgain(d, place, i, f.ahead) {
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

// mayBeOutOfOrder reports whether the command's place in its queue may differ from its number.
// That is so if it was published again, wasn't confirmed, or comes from a group, which takes a
// longer way.
func mayBeOutOfOrder(c *Command) bool { return !c.Confirmed || c.Publishes > 1 || c.Group != "" }

// mayBeWrittenAgain reports whether the command may have had its turn before. There are two cases:
//
//   - It was written to a connection that broke before the device read it. After a kill the host
//     writes it again, behind the commands that the next connection has taken.
//   - It ended without being written, for example because a newer command superseded it. A stop
//     left this outcome unrecorded. Then the next host runs the command again.
func (e *evidence) mayBeWrittenAgain(d *deviceLog, place, read, ahead int) bool {
	late, before := e.Reads[read].Time, e.Reads[ahead].Time
	r := e.onlyOutcome(place)
	if r == nil || r.Attempt < 2 {
		return false
	}
	if e.unrecordedBefore(place, 0) {
		return true
	}
	if !e.wasKilled(before, late) {
		return false
	}
	for _, s := range d.sessions {
		if s.broke && !s.end.Before(e.Commands[place].Sent) && !s.end.After(before) {
			return true
		}
	}
	return false
}

// judgeFenced checks that the sessions of a device follow each other. It uses the connections on
// which lines were read, and the epochs of results.
func judgeFenced(e *evidence) []finding {
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
		found = append(found, e.judgeEpochs(d)...)
	}
	return found
}

// judgeEpochs checks the epochs of results in the order of the commands. Only results of written
// commands count, and only within one attempt. A command that is written again after a crash has a
// newer epoch than one that had finished before.
func (e *evidence) judgeEpochs(d *deviceLog) []finding {
	var found []finding
	newest := map[int]*Result{} // by attempt
	for _, place := range d.commands {
		c, r := &e.Commands[place], e.onlyOutcome(place)
		if r == nil || r.Epoch == 0 || mayBeOutOfOrder(c) {
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

// recoveryTime is how long the effects of a fault may last after its end.
const recoveryTime = 30 * time.Second

// judgeDuplicates checks lines that were read more than once. A kill allows that for the commands
// that were in flight.
func judgeDuplicates(e *evidence) []finding {
	kills, allowed := e.listKills()
	var found []finding
	var again []string // the commands of reads that a kill may explain, before they are counted
	for i := range e.Commands {
		c, l := &e.Commands[i], &e.lives[i]
		for n := 1; n < len(l.reads); n++ {
			what := ""
			switch {
			case c.Mode == device.AtMostOnce:
				what = "it was to be written at most once"
			case e.unrecordedBefore(i, n):
				continue
			case len(kills) == 0:
				what = "the host wasn't killed"
			case !e.wasInFlight(kills, i, n):
				what = "it wasn't in flight when the host was killed"
			default:
				again = append(again, c.ID)
				continue
			}
			found = append(found, finding{
				id: c.ID, device: c.Device,
				what: fmt.Sprintf("the device read it %d times, again at %s, and %s", len(l.reads), e.sinceStart(e.Reads[l.reads[n]].Time), what),
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

// unrecordedBefore reports whether a stop before the nth read of the command at that place left
// its outcome unrecorded.
func (e *evidence) unrecordedBefore(place, n int) bool {
	again := e.Reads[e.lives[place].reads[n]].Time
	return slices.ContainsFunc(e.Stops, func(s Stop) bool { return s.leftUnrecorded(e.Commands[place].ID) && s.Begin.Before(again) })
}

// kill is a fault that killed the host. Its effects may last until effectUntil.
type kill struct {
	Fault
	effectUntil time.Time
}

// listKills returns the kills, and how many commands were in flight in all of them. The effects of
// a kill last through faults that follow closely, because these may keep the host from writing the
// commands again.
func (e *evidence) listKills() (kills []kill, inFlight int) {
	first := 0 // the first kill whose effects last through the current fault
	for i, f := range e.faults.faults {
		if i > 0 && f.Begin.After(e.faults.latestEnd[i-1].Add(recoveryTime)) {
			first = len(kills)
		}
		if f.Killed {
			kills = append(kills, kill{Fault: f})
			inFlight += f.InFlight
		}
		last := i+1 == len(e.faults.faults) || e.faults.faults[i+1].Begin.After(e.faults.latestEnd[i].Add(recoveryTime))
		if last {
			for j := range kills[first:] {
				kills[first+j].effectUntil = e.faults.latestEnd[i].Add(recoveryTime)
			}
		}
	}
	return kills, inFlight
}

// wasInFlight reports whether a kill may explain the nth read of the command at that place. The
// command was published and had no published result at the kill, and it was written again soon
// after.
func (e *evidence) wasInFlight(kills []kill, place, n int) bool {
	l := &e.lives[place]
	before, again := e.Reads[l.reads[n-1]].Time, e.Reads[l.reads[n]].Time
	for _, k := range kills {
		if k.Begin.After(again) {
			break
		}
		there := !e.Commands[place].Sent.After(k.End)
		out := len(l.outcomes) > 0 && e.Results[l.outcomes[0]].Read.Before(k.Begin)
		// A device may still read what the kernel had when the host was killed. So before may be
		// later than the kill.
		if there && !out && !before.After(k.End.Add(recoveryTime)) && !again.After(k.effectUntil) {
			return true
		}
	}
	return false
}
