package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// judgeOneResult counts the results of each command. Repeats of one result count once, and `held`
// isn't terminal.
func judgeOneResult(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c, outcomes := &e.Commands[i], e.lives[i].outcomes
		if e.commandByKey[c.commandKey()] != i {
			found = append(found, finding{id: c.ID, device: c.Device, what: "the history has two commands of this id"})
			continue
		}
		what := ""
		switch {
		case c.Malformed && len(outcomes) > 0:
			what = "it was malformed and belongs in poison, but it has a result"
		case c.Malformed:
		case len(outcomes) > 1:
			what = fmt.Sprintf("it has %d different results: %s", len(outcomes), e.listResults(outcomes))
		case e.expiredBeforeRead(i):
		case c.Confirmed && len(outcomes) == 0 && len(e.lives[i].results) > 0:
			what = "the broker confirmed it; it was held, and has no terminal result"
		case c.Confirmed && len(outcomes) == 0:
			what = "the broker confirmed it, and it has no result"
		}
		if what != "" {
			found = append(found, finding{id: c.ID, device: c.Device, what: what})
		}
	}
	told := map[string]bool{}
	for _, i := range e.unknownResults {
		if r := &e.Results[i]; !told[r.ID] {
			told[r.ID] = true
			found = append(found, finding{id: r.ID, device: r.Device, what: fmt.Sprintf("a result %s for an id that was never published", r.State)})
		}
	}
	return found
}

// expiredBeforeRead reports whether the broker dropped the ith command because it expired, and
// nothing shows that the host ever had it.
func (e *evidence) expiredBeforeRead(i int) bool {
	c, l := &e.Commands[i], &e.lives[i]
	return c.Expiration > 0 && len(l.reads) == 0 && len(l.results) == 0 &&
		slices.ContainsFunc(l.deadLetters, func(d int) bool { return e.End.DeadLetters[d].Reason == expiredAtBroker })
}

// listResults describes the first few results.
func (e *evidence) listResults(places []int) string {
	const few = 4
	var list []string
	for _, i := range places[:min(few, len(places))] {
		r := &e.Results[i]
		list = append(list, fmt.Sprintf("%s in attempt %d", r.State, r.Attempt))
	}
	if len(places) > few {
		list = append(list, "...")
	}
	return strings.Join(list, ", ")
}

// claim is what a terminal state says about the device.
type claim int

const (
	// mayBeRecorded: the device may have recorded the command or not.
	mayBeRecorded claim = iota + 1
	// mustBeRecorded: the device recorded it.
	mustBeRecorded
	// mustBeRecordedUnlessBroken: the device recorded it, unless the session to which it was
	// written broke.
	mustBeRecordedUnlessBroken
	// mustNotBeRecorded: the device didn't record it in any attempt.
	mustNotBeRecorded
)

// claims has the claim of each state. A feature that adds a state adds it here.
var claims = map[device.State]claim{
	device.StateAnswered:      mustBeRecorded,
	device.StateSent:          mustBeRecordedUnlessBroken,
	device.StateRejected:      mustNotBeRecorded,
	device.StateUnknownDevice: mustNotBeRecorded,
	device.StateSuperseded:    mustNotBeRecorded,
	device.StateExpired:       mustNotBeRecorded,
	device.StateBusy:          mustNotBeRecorded,
	device.StateOffline:       mustNotBeRecorded,
	device.StateNoReply:       mayBeRecorded,
	device.StateUnknown:       mayBeRecorded,
}

// judgeTrueResult compares each result with what its device recorded.
func judgeTrueResult(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c, l := &e.Commands[i], &e.lives[i]
		recorded := len(l.reads) > 0
		for _, place := range l.outcomes {
			r := &e.Results[place]
			what := ""
			switch claims[r.State] {
			case mayBeRecorded:
				if r.State == device.StateUnknown && !e.wasInterrupted(c, r.Time) {
					what = "its result is unknown, and neither the host nor a session of the device ended in that time"
				}
			case mustBeRecorded:
				if !recorded {
					what = fmt.Sprintf("its result is %s, and the device didn't record it", r.State)
				}
			case mustBeRecordedUnlessBroken:
				if !recorded && !e.sessionBroke(c.Device, r.Epoch) {
					what = fmt.Sprintf("its result is %s, the device didn't record it, and nothing broke the session of epoch %d", r.State, r.Epoch)
				}
			case mustNotBeRecorded:
				switch {
				case recorded:
					what = fmt.Sprintf("its result is %s, and the device recorded it at %s", r.State, e.sinceStart(e.Reads[l.reads[0]].Time))
				case r.State == device.StateOffline && c.Held:
					what = "its result is offline, and it was to be held"
				case r.State == device.StateExpired && !c.overAt(r.Time):
					what = "its result is expired, and its time wasn't over"
				case r.State == device.StateSuperseded && !e.wasSuperseded(i):
					what = fmt.Sprintf("its result is %s, and no newer command for the device changes the same setting", r.State)
				}
			default:
				what = fmt.Sprintf("its result is %q, which isn't a state", r.State)
			}
			if what != "" {
				found = append(found, finding{id: c.ID, device: c.Device, what: what})
			}
		}
	}
	return found
}

// overAt reports whether one of the command's times was over.
func (c *Command) overAt(t time.Time) bool {
	over := func(life time.Duration) bool { return life > 0 && !t.Before(c.Sent.Add(life)) }
	return over(c.TTL) || over(c.Expiration)
}

// wasInterrupted reports whether the host or a session of the command's device ended, or may have
// ended, between the sending of the command and that time.
func (e *evidence) wasInterrupted(c *Command, until time.Time) bool {
	from, d := c.Sent, e.byName[c.Device]
	return e.wasKilled(from, until) || d.cuts.anyBetween(from, until, func(Fault) bool { return true }) ||
		slices.ContainsFunc(e.Stops, func(s Stop) bool { return !s.End.Before(from) && !s.Begin.After(until) }) ||
		slices.ContainsFunc(d.sessions, func(s *sessionSpan) bool {
			return !s.end.Before(from) && !s.start.After(until) && s.end.Before(e.end) && (s.broke || s.ended)
		})
}

// wasSuperseded reports whether a newer command to the device changes the same setting as the ith.
func (e *evidence) wasSuperseded(i int) bool {
	c := &e.Commands[i]
	return c.Sets != "" && slices.ContainsFunc(e.Commands[i+1:], func(newer Command) bool {
		return newer.Device == c.Device && newer.Sets == c.Sets && !newer.Malformed
	})
}

// sessionBroke reports whether the device's session of that epoch ended, or may have ended,
// without a clean close.
func (e *evidence) sessionBroke(name string, epoch uint64) bool {
	s, ok := e.byName[name].byEpoch[epoch]
	return ok && s.broke
}

// judgeAddressed finds lines and results that are for another device or for no published command.
func judgeAddressed(e *evidence) []finding {
	var found []finding
	for i := range e.Reads {
		r := &e.Reads[i]
		switch p, ok := e.findCommand(r.ID, r.Device); {
		case !ok:
			found = append(found, finding{id: r.ID, device: r.Device, what: "the device read a line that was never published"})
		case e.Commands[p].Device != r.Device:
			found = append(found, finding{id: r.ID, device: r.Device, what: "the device read a command for " + e.Commands[p].Device})
		}
	}
	for i := range e.Commands {
		c := &e.Commands[i]
		other := func(place int) bool { return e.Results[place].Device != c.Device }
		if at := slices.IndexFunc(e.lives[i].results, other); at >= 0 {
			wrong := &e.Results[e.lives[i].results[at]]
			found = append(found, finding{id: c.ID, device: c.Device, what: fmt.Sprintf("its result says that it was for %q", wrong.Device)})
		}
	}
	return found
}
