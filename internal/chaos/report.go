package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/transports/device"
)

// Report is what a run came to, for people ([Report.Text]) and as JSON.
type Report struct {
	Seed  uint64 `json:"seed"`
	Queue string `json:"queue"`
	// Seconds is how long the run took.
	Seconds float64 `json:"seconds"`
	Counts  Counts  `json:"counts"`
	// Faults are what was done to the run, in order, with when.
	Faults []string `json:"faults"`
	// Rules are all that were judged.
	Rules []RuleReport `json:"rules"`
	// Violations are the first of each rule, each with its story.
	Violations []Violation `json:"violations"`
}

// Counts is how much there was of everything.
type Counts struct {
	Devices   int `json:"devices"`
	Commands  int `json:"commands"`
	Confirmed int `json:"confirmed"`
	Undecided int `json:"undecided"`
	Malformed int `json:"malformed"`
	// Groups are how many commands were to a group; each counts in Commands as often as the group has devices.
	Groups int `json:"groups"`
	// Summaries are the messages about groups.
	Summaries map[device.GroupState]int `json:"summaries"`
	// Asking are the commands that their devices were to answer.
	Asking int `json:"asking"`
	// Results are the different ones, held included; Repeats are messages that brought one of them again.
	Results int `json:"results"`
	Repeats int `json:"repeats"`
	// States are the terminal results by their state.
	States map[device.State]int `json:"states"`
	// Lines are those that devices read; Duplicates are those of them that they had read before.
	Lines      int `json:"lines"`
	Duplicates int `json:"duplicates"`
	Events     int `json:"events"`
	Faults     int `json:"faults"`
	Kills      int `json:"kills"`
}

// RuleReport is how often one rule was broken.
type RuleReport struct {
	Rule       string `json:"rule"`
	Promise    string `json:"promise"`
	Violations int    `json:"violations"`
}

// NewReport judges the history and counts what is in it.
func NewReport(h *History) *Report {
	e := newEvidence(h)
	r := &Report{
		Seed: h.Seed, Queue: h.Queue, Seconds: e.end.Sub(e.start).Seconds(), Counts: e.count(),
		Faults: []string{}, Violations: []Violation{}, // none are [] in JSON
	}
	for _, f := range e.faults.faults {
		r.Faults = append(r.Faults, e.at(f.Begin)+" "+e.faultStep(f, nil))
	}
	for _, rule := range rules {
		all := e.violations(rule)
		r.Rules = append(r.Rules, RuleReport{rule.name, rule.promise, len(all)})
		r.Violations = append(r.Violations, all[:min(stories, len(all))]...)
	}
	return r
}

func (e *evidence) count() Counts {
	c := Counts{
		Commands: len(e.Commands), Lines: len(e.Reads), Events: len(e.Events), Faults: len(e.faults.faults),
		States: map[device.State]int{}, Summaries: map[device.GroupState]int{},
	}
	for _, g := range e.groups {
		if len(g.commands) > 0 {
			c.Groups++
		}
	}
	for i := range e.Reports {
		c.Summaries[e.Reports[i].State]++
	}
	for _, d := range e.devices {
		if len(d.commands) > 0 {
			c.Devices++
		}
	}
	for i := range e.Commands {
		if e.Commands[i].Confirmed {
			c.Confirmed++
		} else {
			c.Undecided++
		}
		if e.Commands[i].Malformed {
			c.Malformed++
		}
		if e.Commands[i].Asks {
			c.Asking++
		}
		l := &e.lives[i]
		c.Duplicates += max(0, len(l.reads)-1)
		held := 0
		for _, place := range l.results {
			if !e.Results[place].State.Terminal() {
				held++
			}
		}
		c.Results += len(l.outcomes) + min(held, 1)
		for _, place := range l.outcomes {
			c.States[e.Results[place].State]++
		}
	}
	c.Results += len(e.strays)
	c.Repeats = len(e.Results) - c.Results
	for _, f := range e.faults.faults {
		if f.Killed {
			c.Kills++
		}
	}
	return c
}

// Broken is how many violations there are in all.
func (r *Report) Broken() int {
	n := 0
	for _, rule := range r.Rules {
		n += rule.Violations
	}
	return n
}

// Text writes the report for people: what there was, which promises hold, and the stories of those that don't.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	verdict := "every promise holds"
	if n := r.Broken(); n == 1 {
		verdict = "1 violation"
	} else if n > 1 {
		verdict = fmt.Sprintf("%d violations", n)
	}
	fmt.Fprintf(&b, "Seed %d, %s queue, %.1fs: %s.\n\n", r.Seed, r.Queue, r.Seconds, verdict)
	c := r.Counts
	fmt.Fprintf(&b, "commands  %d to %d devices: %d confirmed, %d undecided", c.Commands, c.Devices, c.Confirmed, c.Undecided)
	if c.Malformed > 0 {
		fmt.Fprintf(&b, ", %d of them malformed", c.Malformed)
	}
	if c.Asking > 0 {
		fmt.Fprintf(&b, "\nquestions %d", c.Asking)
	}
	if c.Groups > 0 {
		fmt.Fprintf(&b, "\ngroups    %d", c.Groups)
		list(&b, c.Summaries)
	}
	fmt.Fprintf(&b, "\nresults   %d and %d repeats", c.Results, c.Repeats)
	list(&b, c.States)
	fmt.Fprintf(&b, "\nlines     %d, of which %d had been read before\nevents    %d\nfaults    %d, of which %d killed the host\n",
		c.Lines, c.Duplicates, c.Events, c.Faults, c.Kills)
	for _, f := range r.Faults {
		fmt.Fprintf(&b, "          %s\n", f)
	}
	b.WriteString("\n")
	for _, rule := range r.Rules {
		state := "ok"
		if rule.Violations > 0 {
			state = fmt.Sprintf("BROKEN %d", rule.Violations)
		}
		fmt.Fprintf(&b, "%-12s %-12s %s\n", rule.Rule, state, rule.Promise)
	}
	for _, rule := range r.Rules {
		r.tell(&b, rule)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// list writes how often there was what.
func list[S ~string](b *strings.Builder, of map[S]int) {
	separator := ": "
	for _, state := range slices.Sorted(maps.Keys(of)) {
		fmt.Fprintf(b, "%s%s %d", separator, state, of[state])
		separator = ", "
	}
}

// tell writes the stories of one rule.
func (r *Report) tell(b *strings.Builder, rule RuleReport) {
	if rule.Violations == 0 {
		return
	}
	fmt.Fprintf(b, "\n== %s: %s\n", rule.Rule, rule.Promise)
	told := 0
	for _, v := range r.Violations {
		if v.Rule != rule.Rule {
			continue
		}
		told++
		fmt.Fprintf(b, "\n%d. ", told)
		if v.ID != "" {
			fmt.Fprintf(b, "command %s", v.ID)
		}
		if v.ID != "" && v.Device != "" {
			b.WriteString(", ")
		}
		if v.Device != "" {
			fmt.Fprintf(b, "device %s", v.Device)
		}
		if v.ID != "" || v.Device != "" {
			b.WriteString(": ")
		}
		fmt.Fprintf(b, "%s\n", v.What)
		for _, s := range v.Story {
			fmt.Fprintf(b, "   %s\n", s)
		}
	}
	if more := rule.Violations - told; more > 0 {
		fmt.Fprintf(b, "\nand %d more.\n", more)
	}
}
