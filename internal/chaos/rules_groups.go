package chaos

import (
	"fmt"
	"maps"
	"time"

	"github.com/pentrough/pentrough/transports/device"
)

// judgeGroups checks the reports about groups. The rule one-result checks that each of a group's
// commands has one result.
func judgeGroups(e *evidence) []finding {
	var found []finding
	for i := range e.Commands {
		c := &e.Commands[i]
		for _, place := range e.lives[i].results {
			if r := &e.Results[place]; r.Group != c.Group {
				found = append(found, finding{id: c.ID, device: c.Device, what: fmt.Sprintf("its result is of the group %q, and it is of %q", r.Group, c.Group)})
				break
			}
		}
	}
	for _, id := range e.groupIDs {
		if what := e.judgeGroup(e.groups[id]); what != "" {
			found = append(found, finding{id: id, what: what, story: func() []string { return e.groupStory(id) }})
		}
	}
	return found
}

// maxSummaryDelay is how long after a group's last result the summary may be published.
const maxSummaryDelay = time.Second

// judgeGroup returns what is wrong with a group, or "". A summary is promised only if no fault
// happened to the host during the group. It may come more than once. A summary that doesn't cover
// all commands knows only some of their results.
func (e *evidence) judgeGroup(g *groupLog) string {
	n := len(g.commands)
	if n == 0 {
		return "a report about a group that was never published"
	}
	states, ended, last := e.groupOutcomes(g)
	expanded, summaries := false, 0
	for _, place := range g.reports {
		r := &e.Reports[place]
		counted := 0
		for state, count := range r.States {
			counted += count
			if ended == n && count > states[state] {
				return fmt.Sprintf("its summary has %d results that are %s, and there are %d", count, state, states[state])
			}
		}
		switch r.State {
		case device.GroupRejected:
			return "it was rejected: " + r.Detail
		case device.GroupExpanded:
			expanded = true
		case device.GroupFinished, device.GroupUnfinished:
			summaries++
		default:
			return fmt.Sprintf("a report has the state %q, which isn't a state", r.State)
		}
		summary := r.State != device.GroupExpanded
		switch {
		case r.Devices != n && (r.State != device.GroupUnfinished || r.Devices != 0):
			return fmt.Sprintf("a report says that it has %d devices, and it has %d", r.Devices, n)
		case summary && r.Devices != 0 && counted+r.Unfinished != n:
			return fmt.Sprintf("its summary has %d results and %d unfinished, and it has %d devices", counted, r.Unfinished, n)
		case r.State == device.GroupFinished && ended == n && !maps.Equal(r.States, states):
			return fmt.Sprintf("its summary has %v, and its results are %v", r.States, states)
		}
	}
	first := &e.Commands[g.commands[0]]
	switch {
	case first.Confirmed && !expanded:
		return "the broker confirmed it, and nothing says that it was expanded"
	case first.Confirmed && summaries == 0 && ended == n && !e.faults.anyBetween(first.Sent, last.Add(maxSummaryDelay), func(Fault) bool { return true }):
		return "all of its commands have a result, nothing happened to its host, and it has no summary"
	default:
		return ""
	}
}

// groupOutcomes returns how many of a group's commands ended in each state, how many have exactly
// one outcome, and when the last of them was read.
func (e *evidence) groupOutcomes(g *groupLog) (states map[device.State]int, ended int, last time.Time) {
	states = map[device.State]int{}
	for _, place := range g.commands {
		if r := e.onlyOutcome(place); r != nil {
			states[r.State]++
			ended++
			if r.Read.After(last) {
				last = r.Read
			}
		}
	}
	return states, ended, last
}

// groupStory returns the reports about a group and the results of its commands.
func (e *evidence) groupStory(id string) []string {
	g := e.groups[id]
	var steps []step
	for i, place := range g.commands {
		if i == 0 {
			steps = append(steps, step{e.Commands[place].Sent, e.publishStep(&e.Commands[place])})
		}
		for _, at := range e.lives[place].results {
			r := &e.Results[at]
			steps = append(steps, step{r.Read, r.Device + " " + e.resultStep(r)})
		}
	}
	for _, place := range g.reports {
		r := &e.Reports[place]
		text := fmt.Sprintf("%s from %s: %d devices, %v, %d unfinished", r.State, r.Host, r.Devices, r.States, r.Unfinished)
		if r.Detail != "" {
			text += " (" + r.Detail + ")"
		}
		steps = append(steps, step{r.Read, text})
	}
	for _, f := range e.faults.faults {
		steps = append(steps, step{f.Begin, e.faultStep(f, nil)})
	}
	return e.writeSteps(steps)
}
