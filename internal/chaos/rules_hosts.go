package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// exitUnclean is the exit code of a host that couldn't record or settle everything before it
// ended.
const exitUnclean = 3

// judgeStops checks what the host says about its orderly stops.
func judgeStops(e *evidence) []finding {
	var found []finding
	for i := range e.Stops {
		s := &e.Stops[i]
		when := fmt.Sprintf("the host stopped at %s with exit code %d", e.sinceStart(s.End), s.Code)
		switch {
		case s.Code == 0:
			found = append(found, e.judgeCleanStop(s, when)...)
		case s.Code != exitUnclean:
			found = append(found, finding{what: when + ", which isn't an exit code of a stop"})
		case !namesWhatIsLeft(s):
			found = append(found, finding{what: fmt.Sprintf("%s and didn't name what is left; %d commands were unrecorded", when, len(s.Unrecorded))})
		}
	}
	return found
}

// namesWhatIsLeft reports whether the host named one of the commands that its stop left. It is
// also enough if the host said that messages weren't settled or handled, or that changes of the
// ledger weren't recorded.
func namesWhatIsLeft(s *Stop) bool {
	said := func(what string) bool { return strings.Contains(s.Output, what) }
	return slices.ContainsFunc(s.Unrecorded, func(id string) bool { return said(strconv.Quote(id)) }) ||
		said("not settled in time") || said("not handled in time") || said("not all changes are recorded")
}

// leftUnrecorded reports whether the stop left the outcome of the command unrecorded, so that it
// may be written again.
func (s *Stop) leftUnrecorded(id string) bool {
	return s.Code == exitUnclean && slices.Contains(s.Unrecorded, id)
}

// judgeCleanStop checks a stop that reports that nothing is left.
func (e *evidence) judgeCleanStop(s *Stop, when string) []finding {
	var found []finding
	for _, id := range s.Unrecorded {
		found = append(found, finding{id: id, device: e.deviceOf(id), what: when + ", and the ledger didn't have how it ended"})
	}
	for i := range e.Commands {
		c, l := &e.Commands[i], &e.lives[i]
		written := slices.ContainsFunc(l.reads, func(place int) bool {
			t := e.Reads[place].Time
			return t.After(s.Started) && t.Before(s.Begin)
		})
		if len(l.outcomes) == 0 || !written {
			continue // what has no result at all is for one-result
		}
		decided := slices.ContainsFunc(l.outcomes, func(place int) bool { return !e.Results[place].Time.After(s.End) })
		if !decided && !slices.Contains(s.Unrecorded, c.ID) {
			found = append(found, finding{id: c.ID, device: c.Device, what: when + "; the device had read it, and its result came later"})
		}
	}
	return found
}

// judgeSecondHosts checks hosts that were started on a store that another host used.
func judgeSecondHosts(e *evidence) []finding {
	var found []finding
	for i := range e.SecondHosts {
		second := &e.SecondHosts[i]
		when := fmt.Sprintf("the host %s ran from %s to %s on the store of another one", second.Name, e.sinceStart(second.Begin), e.sinceStart(second.End))
		for j := range e.Results {
			if r := &e.Results[j]; r.Host == second.Name {
				found = append(found, finding{id: r.ID, device: r.Device, what: fmt.Sprintf("%s, and its result is that host's: %s", when, r.State)})
			}
		}
		for j := range e.Events {
			if v := &e.Events[j]; v.Host == second.Name && v.Device != "" {
				found = append(found, finding{device: v.Device, what: fmt.Sprintf("%s, and had a session of the device", when)})
			}
		}
		if !strings.Contains(second.Output, second.First) {
			found = append(found, finding{what: fmt.Sprintf("%s, and didn't name it as %q", when, second.First)})
		}
	}
	return found
}
