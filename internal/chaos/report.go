package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/pentrough/pentrough/transports/device"
)

// Report is the outcome of a run, as text ([Report.Text]) and as JSON.
type Report struct {
	Seed  uint64 `json:"seed"`
	Queue string `json:"queue"`
	// Seconds is the length of the run.
	Seconds float64 `json:"seconds"`
	Counts  Counts  `json:"counts"`
	// Faults are the faults in order, with their times.
	Faults []string `json:"faults"`
	// Rules are all rules.
	Rules []RuleReport `json:"rules"`
	// Violations are the first ones of each rule, with their stories.
	Violations []Violation `json:"violations"`
}

// Counts has the totals of a run.
type Counts struct {
	Devices   int `json:"devices"`
	Commands  int `json:"commands"`
	Confirmed int `json:"confirmed"`
	Undecided int `json:"undecided"`
	Malformed int `json:"malformed"`
	// Groups are the group commands. In Commands each counts as often as the group has devices.
	Groups int `json:"groups"`
	// Summaries are the messages about groups.
	Summaries map[device.GroupState]int `json:"summaries"`
	// Requests are the commands that expect an answer.
	Requests int `json:"requests"`
	// Results are the different results, held included. Repeats are messages that repeat one of
	// them.
	Results int `json:"results"`
	Repeats int `json:"repeats"`
	// States are the terminal results by state.
	States map[device.State]int `json:"states"`
	// Lines are the lines that devices read. Duplicates are lines that a device had read before.
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
		Seed: h.Seed, Queue: h.Queue, Seconds: e.end.Sub(e.start).Seconds(), Counts: e.countHistory(),
		Faults: []string{}, Violations: []Violation{}, // none are [] in JSON
	}
	for _, f := range e.faults.faults {
		r.Faults = append(r.Faults, e.sinceStart(f.Begin)+" "+e.faultStep(f, nil))
	}
	for _, rule := range rules {
		all := e.applyRule(rule)
		r.Rules = append(r.Rules, RuleReport{rule.name, rule.promise, len(all)})
		r.Violations = append(r.Violations, all[:min(stories, len(all))]...)
	}
	return r
}

func (e *evidence) countHistory() Counts {
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
		if e.Commands[i].WantsAnswer {
			c.Requests++
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
	c.Results += len(e.unknownResults)
	c.Repeats = len(e.Results) - c.Results
	for _, f := range e.faults.faults {
		if f.Killed {
			c.Kills++
		}
	}
	return c
}

// CountViolations returns the number of violations of all rules.
func (r *Report) CountViolations() int {
	n := 0
	for _, rule := range r.Rules {
		n += rule.Violations
	}
	return n
}

// Text writes the report for people: the totals, which promises were kept, and the stories of
// those that weren't.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	verdict := "every promise holds"
	if n := r.CountViolations(); n == 1 {
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
	if c.Requests > 0 {
		fmt.Fprintf(&b, "\nrequests  %d", c.Requests)
	}
	if c.Groups > 0 {
		fmt.Fprintf(&b, "\ngroups    %d", c.Groups)
		writeCounts(&b, c.Summaries)
	}
	fmt.Fprintf(&b, "\nresults   %d and %d repeats", c.Results, c.Repeats)
	writeCounts(&b, c.States)
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
		r.writeStories(&b, rule)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeCounts writes how many there are of each state.
func writeCounts[S ~string](b *strings.Builder, of map[S]int) {
	separator := ": "
	for _, state := range slices.Sorted(maps.Keys(of)) {
		fmt.Fprintf(b, "%s%s %d", separator, state, of[state])
		separator = ", "
	}
}

// writeStories writes the stories of one rule.
func (r *Report) writeStories(b *strings.Builder, rule RuleReport) {
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
