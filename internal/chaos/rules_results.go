package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// oneResult judges how many results there are. Repeats of one result are one, and held isn't terminal.
func oneResult(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c, outcomes := &e.Commands[i], e.lives[i].outcomes
		if e.place[c.key()] != i {
			found = append(found, finding{id: c.ID, device: c.Device, what: "the history has two commands of this id"})
			continue
		}
		what := ""
		switch {
		case c.Malformed && len(outcomes) > 0:
			what = "it was malformed, which is for poison, and has a result"
		case c.Malformed:
		case len(outcomes) > 1:
			what = fmt.Sprintf("it has %d different results: %s", len(outcomes), e.listResults(outcomes))
		case e.expiredUnread(i):
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
	for _, i := range e.strays {
		if r := &e.Results[i]; !told[r.ID] {
			told[r.ID] = true
			found = append(found, finding{id: r.ID, device: r.Device, what: fmt.Sprintf("a result, %s, for an id that nobody published", r.State)})
		}
	}
	return found
}

// expiredUnread says whether the broker dropped the ith command in time, and nothing shows that the
// host ever had it.
func (e *evidence) expiredUnread(i int) bool {
	c, l := &e.Commands[i], &e.lives[i]
	return c.Expiration > 0 && len(l.reads) == 0 && len(l.results) == 0 &&
		slices.ContainsFunc(l.deadLetters, func(d int) bool { return e.End.DeadLetters[d].Reason == expiredAtBroker })
}

// listResults lists the first few.
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

// claim is what a terminal state says of the device.
type claim int

const (
	// mayHaveIt: it may have recorded the command or not.
	mayHaveIt claim = iota + 1
	// hasIt: it recorded it.
	hasIt
	// gotIt: it recorded it, unless the session broke that it was written to.
	gotIt
	// lacksIt: it didn't record it, in no attempt.
	lacksIt
)

// claims are what the states say. A feature that brings a state adds it here.
var claims = map[device.State]claim{
	device.StateAnswered:      hasIt,
	device.StateSent:          gotIt,
	device.StateRejected:      lacksIt,
	device.StateUnknownDevice: lacksIt,
	device.StateSuperseded:    lacksIt,
	device.StateExpired:       lacksIt,
	device.StateBusy:          lacksIt,
	device.StateOffline:       lacksIt,
	device.StateNoReply:       mayHaveIt,
	device.StateUnknown:       mayHaveIt,
}

// trueResult holds each result against what its device recorded.
func trueResult(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c, l := &e.Commands[i], &e.lives[i]
		recorded := len(l.reads) > 0
		for _, place := range l.outcomes {
			r := &e.Results[place]
			what := ""
			switch claims[r.State] {
			case mayHaveIt:
				if r.State == device.StateUnknown && !e.interrupted(c, r.Time) {
					what = "its result is unknown, and neither the host nor a session of the device ended meanwhile"
				}
			case hasIt:
				if !recorded {
					what = fmt.Sprintf("its result is %s, and the device didn't record it", r.State)
				}
			case gotIt:
				if !recorded && !e.broke(c.Device, r.Epoch) {
					what = fmt.Sprintf("its result is %s, the device didn't record it, and nothing broke the session of epoch %d", r.State, r.Epoch)
				}
			case lacksIt:
				switch {
				case recorded:
					what = fmt.Sprintf("its result is %s, and the device recorded it at %s", r.State, e.at(e.Reads[l.reads[0]].Time))
				case r.State == device.StateOffline && c.Held:
					what = "its result is offline, and it was to be held"
				case r.State == device.StateExpired && !c.overAt(r.Time):
					what = "its result is expired, and its time wasn't over"
				case r.State == device.StateSuperseded && !e.superseded(i):
					what = fmt.Sprintf("its result is %s, and no newer command to the device sets the same", r.State)
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

// overAt says whether one of the command's times was over.
func (c *Command) overAt(t time.Time) bool {
	over := func(life time.Duration) bool { return life > 0 && !t.Before(c.Sent.Add(life)) }
	return over(c.TTL) || over(c.Expiration)
}

// interrupted says whether the host or a session of the command's device ended, or may have ended,
// between the command's sending and that time.
func (e *evidence) interrupted(c *Command, until time.Time) bool {
	from, d := c.Sent, e.byName[c.Device]
	return e.killed(from, until) || d.cuts.any(from, until, func(Fault) bool { return true }) ||
		slices.ContainsFunc(e.Stops, func(s Stop) bool { return !s.End.Before(from) && !s.Begin.After(until) }) ||
		slices.ContainsFunc(d.sessions, func(s *sessionSpan) bool {
			return !s.end.Before(from) && !s.start.After(until) && s.end.Before(e.end) && (s.broke || s.ended)
		})
}

// superseded says whether a newer command to the device sets what the ith does.
func (e *evidence) superseded(i int) bool {
	c := &e.Commands[i]
	return c.Sets != "" && slices.ContainsFunc(e.Commands[i+1:], func(newer Command) bool {
		return newer.Device == c.Device && newer.Sets == c.Sets && !newer.Malformed
	})
}

// broke says whether the device's session of that epoch ended, or may have ended, without a clean close.
func (e *evidence) broke(name string, epoch uint64) bool {
	s, ok := e.byName[name].byEpoch[epoch]
	return ok && s.broke
}

// addressed finds lines and results that went astray.
func addressed(e *evidence) []finding {
	var found []finding
	for i := range e.Reads {
		r := &e.Reads[i]
		switch p, ok := e.find(r.ID, r.Device); {
		case !ok:
			found = append(found, finding{id: r.ID, device: r.Device, what: "the device read a line that nobody published"})
		case e.Commands[p].Device != r.Device:
			found = append(found, finding{id: r.ID, device: r.Device, what: "the device read a command to " + e.Commands[p].Device})
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
