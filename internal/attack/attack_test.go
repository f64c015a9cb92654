package attack

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

const hostSide, bareSide = "host", "bare"

// lengths are the durations of the parts of a measurement.
type lengths struct{ before, during, after time.Duration }

var usualLengths = lengths{before: 5 * time.Second, during: 10 * time.Second, after: 10 * time.Second}

// TestAttacks carries out all attacks and prints the results. It needs the machine for itself:
// `make attacks` runs it.
func TestAttacks(t *testing.T) {
	if os.Getenv("ATTACK_PAIRS") == "" {
		t.Skip("`make attacks` runs this test and sets ATTACK_PAIRS")
	}
	pairs, err := strconv.Atoi(os.Getenv("ATTACK_PAIRS"))
	if err != nil || pairs < 1 {
		t.Fatalf("ATTACK_PAIRS is %q, and must be a number of at least 1", os.Getenv("ATTACK_PAIRS"))
	}
	programs := testenv.Programs(t, "./cmd/pentrough")
	var all []outcome
	load := loadavg(t)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			for pair := 1; pair <= pairs; pair++ {
				for _, o := range runPair(t, programs, a, pair, usualLengths) {
					t.Log(o.summary())
					all = append(all, o)
				}
			}
		})
	}
	fmt.Print(report(all, fmt.Sprintf("load of the machine: %s before, %s after", load, loadavg(t))))
	for _, v := range judge(all) {
		if !v.memory.holds || !v.livez.holds { // a p99 also depends on the machine
			t.Errorf("%s: memory: %s; livez: %s", v.attack, v.memory, v.livez)
		}
	}
}

// TestAttacksWork carries out two small attacks. It checks no times.
func TestAttacksWork(t *testing.T) {
	t.Parallel()
	programs := testenv.Programs(t, "-race", "./cmd/pentrough")
	for _, name := range []string{"bodies", "deaf"} {
		a := attackNamed(name)
		a.count = 20
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, o := range runPair(t, programs, a, 1, lengths{200 * time.Millisecond, time.Second, 200 * time.Millisecond}) {
				if o.tally.Opened != a.count || o.tally.Failed > 0 || o.tally.Error != "" || len(o.readDuring.took) == 0 || len(o.livez.took) == 0 || o.peakMiB == 0 {
					t.Errorf("the attack did not work: %+v", o)
				}
				t.Log(o.summary())
			}
		})
	}
}

// outcome is the result of one attack on one target.
type outcome struct {
	attack attack
	side   string
	pair   int
	// refused says why the attack wasn't carried out.
	refused string
	// The memory before the attack, the highest after its start, some time after its end, and
	// after a restart.
	beforeMiB, peakMiB, afterMiB, restartedMiB float64
	// The times of the honest device's commands: until the device read them, and until their
	// results came.
	readBefore, readDuring, resultBefore, resultDuring figures
	livez, newcomers                                   figures
	// reconnected is how long after the broker's return the next command arrived. It is 0 if the
	// broker never went down.
	reconnected time.Duration
	tally       tally
	// notes are counts from the host.
	notes []string
}

// runPair attacks the host and the bare accept loop. They take turns in being first.
func runPair(t *testing.T, programs string, a attack, pair int, l lengths) (both []outcome) {
	sides := []string{hostSide, bareSide}
	if pair%2 == 0 {
		sides = []string{bareSide, hostSide}
	}
	for _, side := range sides {
		// With a test of its own, the processes of this side end before the next side starts.
		t.Run(fmt.Sprintf("%s-%d", side, pair), func(t *testing.T) {
			if side == bareSide {
				both = append(both, measure(t, a, startBare(t, a), pair, l))
				return
			}
			host, refused := startHost(t, programs, a)
			if refused != "" {
				both = append(both, outcome{attack: a, side: side, pair: pair, refused: refused})
				return
			}
			both = append(both, measure(t, a, host, pair, l))
		})
	}
	return both
}

// measure attacks a target and returns the outcome.
func measure(t *testing.T, a attack, g *target, pair int, l lengths) outcome {
	o := outcome{attack: a, side: g.side, pair: pair}
	p := startProbes(t, g, a.byBroker)
	begin := time.Now()
	pause(t.Context(), l.before)
	o.beforeMiB = memoryMiB(t, g, testenv.Resident)
	testenv.ForgetPeak(t, g.pid())

	attacked := time.Now()
	attacker := launchRole(t, t.TempDir(), "attacker.log", attackerRole, order{g.endpoints, a.name, a.count, l.during}, 0)
	var back time.Time
	if g.broker != nil {
		pause(t.Context(), l.during/4)
		g.broker.Down()
		pause(t.Context(), l.during/4)
		g.broker.Up()
		back = time.Now()
	}
	await.Closed(t, "the attack ends", attacker.Ended)
	over := time.Now()
	if err := json.Unmarshal([]byte(lastLine(attacker.Output(t))), &o.tally); err != nil {
		t.Fatalf("reading the attacker's tally: %v", err)
	}
	pause(t.Context(), l.after)
	o.peakMiB, o.afterMiB = memoryMiB(t, g, testenv.PeakResident), memoryMiB(t, g, testenv.Resident)
	if g.side == hostSide {
		o.notes = hostNotes(t, g)
	}
	p.stopAll()
	o.readBefore, o.readDuring = p.read.between(begin, attacked), p.read.between(attacked, over)
	o.resultBefore, o.resultDuring = p.result.between(begin, attacked), p.result.between(attacked, over)
	o.livez, o.newcomers = p.livez.between(attacked, over), p.newcomers.between(attacked, over)
	if !back.IsZero() {
		var ok bool
		if o.reconnected, ok = p.read.firstAfter(back); !ok {
			o.reconnected = time.Since(back)
		}
	}
	if a.restarts {
		g.restart(t)
		pause(t.Context(), l.before)
		o.restartedMiB = memoryMiB(t, g, testenv.Resident)
	}
	return o
}

func memoryMiB(t *testing.T, g *target, field string) float64 {
	return float64(testenv.Memory(t, g.pid(), field)) / 1024
}

// hostNotes returns how many devices the host refused and how many status messages it published.
func hostNotes(t *testing.T, g *target) []string {
	_, admin, _ := strings.Cut(g.Admin, ":")
	conn, err := amqp.Dial(g.AMQP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	status, err := ch.QueueDeclarePassive(statusQueue, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		fmt.Sprintf("%d status messages", status.Messages),
		fmt.Sprintf("%d devices refused", testenv.Metric(t, admin, "pentrough_tcp_refused_total")),
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// loadavg returns the load of the machine in the last 1, 5 and 15 minutes.
func loadavg(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join("/proc", "loadavg"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
