package chaos

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/pentrough/pentrough/transports/device"
)

func TestAllIsWell(t *testing.T) {
	for name, h := range map[string]*History{"incident": incidentHistory(), "fleet": fleetHistory(), "hosts": hostsHistory()} {
		if diff := cmp.Diff([]Violation(nil), Judge(h)); diff != "" {
			t.Errorf("violations of the %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestBroken(t *testing.T) {
	tested := map[string]bool{}
	all := []struct {
		of        func() *History
		mutations []mutation
	}{{incidentHistory, mutations}, {fleetHistory, fleetMutations}, {hostsHistory, hostMutations}}
	for _, of := range all {
		testMutations(t, of.of, of.mutations, tested)
	}
	for _, r := range rules {
		if !tested[r.name] {
			t.Errorf("nothing here breaks %s", r.name)
		}
	}
}

// testMutations compares what the judge finds in each mutation of a history with what it must
// find, and records the tested rules.
func testMutations(t *testing.T, of func() *History, mutations []mutation, tested map[string]bool) {
	for _, m := range mutations {
		tested[m.rule] = true
		t.Run(m.name, func(t *testing.T) {
			h := of()
			m.mutate(h)
			violations := Judge(h)
			if len(violations) == 0 {
				t.Fatal("nothing is broken")
			}
			for _, v := range violations {
				if v.Rule != m.rule {
					t.Errorf("%s is broken: %+v", v.Rule, v)
				}
			}
			v := violations[0]
			if v.ID != m.id || !strings.Contains(v.What, m.what) {
				t.Errorf("got %q: %s, want %q: %s", v.ID, v.What, m.id, m.what)
			}
			if diff := cmp.Diff(m.story, v.Story); m.story != nil && diff != "" {
				t.Errorf("the story (-want +got):\n%s", diff)
			}
		})
	}
}

// TestExcused changes histories in ways that break no promise.
func TestExcused(t *testing.T) {
	tests := []struct {
		name   string
		mutate func(h *History)
	}{
		{"a session that the kill broke", func(h *History) { removeRead(h, "a/3") }},
		{"a session whose end no event tells of, in an outage", func(h *History) {
			h.Events = slices.DeleteFunc(h.Events, func(v Event) bool { return v.Device == "c" && v.Reason == device.ConnectionLost })
			h.Faults[1].Cut = nil
		}},
		{"repeats with another body", func(h *History) {
			r := *result(h, "a/2")
			r.Body = "the same, spelt otherwise"
			h.Results = append(h.Results, r)
		}},
		{"repeats with the same body", func(h *History) {
			r := *result(h, "a/2")
			r.Epoch = 0
			h.Results = append(h.Results, r)
		}},
		{"no event of the killed sessions", func(h *History) {
			removeRead(h, "a/3")
			h.Events = slices.DeleteFunc(h.Events, func(v Event) bool { return v.Device != "" && v.Read.Before(h.Faults[0].Begin) })
		}},
		{"the wrong order of what was published again", func(h *History) {
			command(h, "b/4").Publishes = 2
			r4, r5 := read(h, "b/4"), read(h, "b/5")
			r4.ID, r5.ID = r5.ID, r4.ID
		}},
		{"the wrong order over two connections, in one look at both", func(h *History) {
			r3, r4 := read(h, "b/3"), read(h, "b/4")
			r3.ID, r4.ID = r4.ID, r3.ID
			r3.Look, r4.Look = 1, 1
		}},
		{"lines twice, after a stop that left it unknown how their commands ended", func(h *History) {
			addRead(h, "b/4", time.Second)
			addRead(h, "b/5", time.Second)
			h.Stops = []Stop{{Begin: h.End.Settled, End: h.End.Settled, Code: exitUnclean, Output: `2 outcomes aren't recorded (ids "b/4", "b/5")`, Unrecorded: []string{"b/4", "b/5"}}}
			h.Stops[0].Begin = read(h, "b/5").Time
		}},
		{"the wrong order, after a stop that left it unknown that a command was superseded", func(h *History) {
			r4, r5 := read(h, "b/4"), read(h, "b/5")
			r4.ID, r5.ID = r5.ID, r4.ID
			result(h, "b/4").Attempt = 2
			h.Stops = []Stop{{Begin: r4.Time.Add(1), End: h.End.Settled, Code: exitUnclean, Output: `1 outcome isn't recorded (id "b/4")`, Unrecorded: []string{"b/4"}}}
		}},
		{"an undecided command with a result", func(h *History) { command(h, "b/5").Confirmed = false }},
		{"silence while the way to the host was shut", func(h *History) {
			h.Faults = append(h.Faults, Fault{Name: "partition", Begin: h.End.Settled, End: h.End.Settled.Add(25 * time.Second)})
			h.End.Settled = h.End.Settled.Add(lostAfter)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := incidentHistory()
			tt.mutate(h)
			for _, v := range Judge(h) {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestChance judges random histories of a host that keeps its promises.
func TestChance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := rapid.IntRange(1, 6).Draw(t, "devices")
		happenings := rapid.IntRange(0, 80).Draw(t, "happenings")
		h := randomHistory(devices, happenings, 40, func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "chance") })
		for _, v := range Judge(h) {
			t.Errorf("%+v", v)
		}
	})
}

// TestKept checks that a history which was stored as JSON gets the same judgement.
func TestKept(t *testing.T) {
	h := randomHistory(20, 500, 100, rand.New(rand.NewPCG(1, 2)).IntN)
	h.Reads[len(h.Reads)/2].Connection = 0
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var kept History
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}
	want := Judge(h)
	if len(want) == 0 {
		t.Error("nothing is broken")
	}
	if diff := cmp.Diff(want, Judge(&kept)); diff != "" {
		t.Errorf("violations (-before +kept):\n%s", diff)
	}
}

// TestLongStory checks that the middle of a long story is left out, and that only the first
// violations have stories.
func TestLongStory(t *testing.T) {
	h := incidentHistory()
	for range 100 {
		addRead(h, "b/5", time.Second)
	}
	h.End.Unfinished = slices.Repeat([]string{"b/5"}, 12)
	violations := Judge(h)
	if len(violations) != 13 {
		t.Fatalf("%d violations, want 13", len(violations))
	}
	for i, v := range violations {
		if i > stories {
			if v.Story != nil {
				t.Errorf("violation %d has a story", i)
			}
			continue
		}
		if len(v.Story) != maxSteps+1 || v.Story[maxSteps/2] != "... 64 steps left out" {
			t.Errorf("violation %d has a story of %d steps, with %q in the middle", i, len(v.Story), v.Story[maxSteps/2])
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	h := randomHistory(200, 100_000, 5_000, rand.New(rand.NewPCG(1, 2)).IntN)
	good := len(Judge(h))
	b.Run("good", func(b *testing.B) {
		for b.Loop() {
			if len(Judge(h)) != good {
				b.Fatal("it is judged differently")
			}
		}
		b.ReportMetric(float64(len(h.Commands)), "commands")
	})
	if good != 0 {
		b.Errorf("%d violations, the first is %+v", good, Judge(h)[0])
	}
	bad := *h
	bad.Reads = slices.Clone(h.Reads)
	slices.Reverse(bad.Reads)
	bad.Results = slices.Clone(h.Results[:len(h.Results)/2])
	for i := range bad.Results {
		bad.Results[i].Epoch = uint64(len(bad.Results) - i)
	}
	b.Run("bad", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n = len(Judge(&bad))
		}
		b.ReportMetric(float64(n), "violations")
	})
}
