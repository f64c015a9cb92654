package chaos

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// exitUnclean is the exit code of a host that couldn't record or settle everything before it ended.
const exitUnclean = 3

// stopsTrue judges what the host says of its orderly stops.
func stopsTrue(e *evidence) []finding {
	var found []finding
	for i := range e.Stops {
		s := &e.Stops[i]
		when := fmt.Sprintf("the host stopped at %s with exit code %d", e.at(s.End), s.Code)
		switch {
		case s.Code == 0:
			found = append(found, e.cleanStop(s, when)...)
		case s.Code != exitUnclean:
			found = append(found, finding{what: when + ", which means something else than a stop"})
		case !saysWhatIsLeft(s):
			found = append(found, finding{what: fmt.Sprintf("%s, and didn't say what is left; %d commands were unrecorded", when, len(s.Unrecorded))})
		}
	}
	return found
}

// saysWhatIsLeft says whether the host named one of the commands that its stop left, or said that
// messages weren't settled or handled, or that changes of the ledger weren't recorded.
func saysWhatIsLeft(s *Stop) bool {
	said := func(what string) bool { return strings.Contains(s.Said, what) }
	return slices.ContainsFunc(s.Unrecorded, func(id string) bool { return said(strconv.Quote(id)) }) ||
		said("not settled in time") || said("not handled in time") || said("not all changes are recorded")
}

// leftBy says whether a stop left it unknown how the command ended, so that it may be written again.
func (s *Stop) leftBy(id string) bool {
	return s.Code == exitUnclean && slices.Contains(s.Unrecorded, id)
}

// cleanStop judges a stop that says that nothing is left.
func (e *evidence) cleanStop(s *Stop, when string) []finding {
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

// secondHostIdle judges hosts that were started on a store which another one used.
func secondHostIdle(e *evidence) []finding {
	var found []finding
	for i := range e.SecondHosts {
		second := &e.SecondHosts[i]
		when := fmt.Sprintf("the host %s ran from %s to %s on the store of another one", second.Name, e.at(second.Begin), e.at(second.End))
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
		if !strings.Contains(second.Said, second.First) {
			found = append(found, finding{what: fmt.Sprintf("%s, and didn't name it as %q", when, second.First)})
		}
	}
	return found
}
