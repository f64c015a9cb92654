package attack

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report returns a table of all outcomes, and a table that compares them with the requirements.
func report(all []outcome, machine string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "\n%s\n\nResults: memory in MiB, times in milliseconds. A command has two times: until the device read it, and until its result was known.\n", machine)
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "attack\tside\tmemory\t\t\tread p50/p99\t\tresult p99\t\tlivez\tnewcomer\tattack's connections")
	fmt.Fprintln(w, "\t\tbefore\tpeak\tafter\tbefore\tduring\tbefore\tduring\tslowest\tslowest\t")
	for _, o := range all {
		if o.refused != "" {
			fmt.Fprintf(w, "%s\t%s\trefused by validate\t\t\t\t\t\t\t\t\t\n", o.attack.name, o.side)
			continue
		}
		fmt.Fprintf(w, "%s\t%s %d\t%.0f\t%.0f\t%.0f\t%s/%s\t%s/%s\t%s\t%s\t%s\t%s\t%s\n", o.attack.name, o.side, o.pair, o.beforeMiB, o.peakMiB, o.afterMiB,
			ms(o.readBefore.percentile(50)), ms(o.readBefore.percentile(99)), ms(o.readDuring.percentile(50)), o.readDuring.percentileText(99),
			ms(o.resultBefore.percentile(99)), o.resultDuring.percentileText(99), o.livez.percentileText(100), o.newcomers.percentileText(100), o.tallyText())
	}
	_ = w.Flush() // a write to a strings.Builder doesn't fail
	fmt.Fprintf(&out, "A time with a + has lost samples: actions that failed or hadn't finished at the end of the measurement.\n\n")
	fmt.Fprintf(&out, "Requirements and measurements. The p99 is that of reads. It depends on the machine, so the growth at the bare accept loop is next to it.\n")
	fmt.Fprintln(w, "attack\tmemory grows by at most\t\tp99 grows by at most\t\t/livez within 1 s\t\twhat it does")
	for _, v := range judge(all) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.attack, v.memory.asked, v.memory.found(), v.p99.asked, v.p99.found(), v.livez.asked, v.livez.found(),
			attackNamed(v.attack).does)
	}
	_ = w.Flush()
	return out.String()
}

func ms(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.0f", d.Seconds()*1000)
}

// percentileText returns a percentile as text. It has a plus sign if samples were lost.
func (f figures) percentileText(p float64) string {
	text := ms(f.percentile(p))
	if f.lost > 0 {
		return fmt.Sprintf("%s+ (%d lost)", text, f.lost)
	}
	return text
}

// tallyText returns the counts of the attacker and the host.
func (o outcome) tallyText() string {
	parts := []string{fmt.Sprintf("%d opened, %d failed, %d closed", o.tally.Opened, o.tally.Failed, o.tally.Closed)}
	if o.tally.Published > 0 {
		parts = append(parts, fmt.Sprintf("%d published", o.tally.Published))
	}
	var statuses []int
	for s := range o.tally.Status {
		statuses = append(statuses, s)
	}
	slices.Sort(statuses)
	for _, s := range statuses {
		parts = append(parts, fmt.Sprintf("%d × %d", o.tally.Status[s], s))
	}
	if o.tally.Slowest > 0 {
		parts = append(parts, fmt.Sprintf("slowest answer %s ms", ms(o.tally.Slowest)))
	}
	if o.reconnected > 0 {
		parts = append(parts, fmt.Sprintf("reconnected after %.1f s", o.reconnected.Seconds()))
	}
	if o.restartedMiB > 0 {
		parts = append(parts, fmt.Sprintf("%.0f MiB after a restart", o.restartedMiB))
	}
	if o.tally.Error != "" {
		parts = append(parts, o.tally.Error)
	}
	return strings.Join(append(parts, o.notes...), ", ")
}

// summary returns an outcome in one line, for the log.
func (o outcome) summary() string {
	if o.refused != "" {
		return o.side + ": refused by validate: " + o.refused
	}
	return fmt.Sprintf("%s: memory %.0f, %.0f, %.0f MiB; read p99 %s, %s ms; livez %s ms; newcomer %s ms; %s", o.side, o.beforeMiB, o.peakMiB, o.afterMiB,
		ms(o.readBefore.percentile(99)), o.readDuring.percentileText(99), o.livez.percentileText(100), o.newcomers.percentileText(100), o.tallyText())
}

// verdict says whether the host met the requirements under one attack.
type verdict struct {
	attack             string
	memory, p99, livez finding
}

// finding is a requirement and what was measured.
type finding struct {
	holds           bool
	asked, measured string
	// excused says that the bare accept loop was hardly better.
	excused bool
}

func (f finding) String() string { return "asked " + f.asked + ", " + f.found() }

func (f finding) found() string {
	switch {
	case f.holds:
		return "ok: " + f.measured
	case f.excused:
		return "as bare: " + f.measured
	default:
		return "BROKEN: " + f.measured
	}
}

// judge compares the host with the requirements, over all pairs. It takes the most memory, the
// slowest answer of /livez, and the median of the p99.
func judge(all []outcome) (verdicts []verdict) {
	for _, a := range attacks {
		var grown, restarted float64
		var livez figures
		var host, bare []float64
		count := 0
		for _, o := range all {
			if o.attack.name != a.name || o.refused != "" {
				continue
			}
			if o.side == bareSide {
				bare = append(bare, o.p99Growth())
				continue
			}
			count++
			host = append(host, o.p99Growth())
			grown, restarted = max(grown, o.peakMiB-o.beforeMiB), max(restarted, o.restartedMiB-o.beforeMiB)
			livez.took, livez.lost = append(livez.took, o.livez.took...), livez.lost+o.livez.lost
		}
		if count == 0 {
			continue
		}
		slices.Sort(livez.took)
		connections := 0
		if a.connections {
			connections = a.count
		}
		allowed := allowedMiB(connections, a.spends)
		v := verdict{attack: a.name}
		afterRestart := allowedMiB(0, []bound{held}) // only held commands survive the process
		v.memory = finding{
			holds: grown <= allowed && restarted <= afterRestart, asked: fmt.Sprintf("%.0f MiB", allowed), measured: fmt.Sprintf("%.0f MiB", grown),
		}
		if a.restarts {
			v.memory.asked += fmt.Sprintf(", %.0f after a restart", afterRestart)
			v.memory.measured += fmt.Sprintf(", %.0f after a restart", restarted)
		}
		grew, bareGrew := median(host), median(bare)
		v.p99 = finding{holds: grew <= p99Factor, asked: fmt.Sprintf("× %d", p99Factor), measured: fmt.Sprintf("× %.1f (bare × %.1f)", grew, bareGrew)}
		v.p99.excused = !v.p99.holds && grew <= p99Factor*bareGrew
		v.livez = finding{
			holds: livez.lost == 0 && livez.percentile(100) <= maxLivez, asked: ms(maxLivez) + " ms", measured: livez.percentileText(100) + " ms",
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

// p99Growth returns the factor by which the p99 of reads grew.
func (o outcome) p99Growth() float64 {
	return float64(o.readDuring.percentile(99)) / float64(max(o.readBefore.percentile(99), 1))
}

// median returns the middle value, or 0 for no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
