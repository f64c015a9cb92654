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

// lengths are how long each part of a measurement takes.
type lengths struct{ before, during, after time.Duration }

var usual = lengths{before: 5 * time.Second, during: 10 * time.Second, after: 10 * time.Second}

// TestAttacks carries out all attacks and prints what they did. It has the machine for itself:
// `make attacks` runs it.
func TestAttacks(t *testing.T) {
	if os.Getenv("ATTACK_PAIRS") == "" {
		t.Skip("it is run by `make attacks`, which says ATTACK_PAIRS")
	}
	pairs, err := strconv.Atoi(os.Getenv("ATTACK_PAIRS"))
	if err != nil || pairs < 1 {
		t.Fatalf("ATTACK_PAIRS is %q, and must be a number from 1 on", os.Getenv("ATTACK_PAIRS"))
	}
	programs := testenv.Programs(t, "./cmd/pentrough")
	var all []outcome
	load := loadavg(t)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			for pair := 1; pair <= pairs; pair++ {
				for _, o := range runPair(t, programs, a, pair, usual) {
					t.Log(o.summary())
					all = append(all, o)
				}
			}
		})
	}
	fmt.Print(report(all, fmt.Sprintf("load of the machine: %s before, %s after", load, loadavg(t))))
	for _, v := range judge(all) {
		if !v.memory.holds || !v.livez.holds { // a p99 is a matter of the machine, too
			t.Errorf("%s: memory: %s; livez: %s", v.attack, v.memory, v.livez)
		}
	}
}

// TestAttacksWork carries out two small attacks. It says nothing about times.
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

// outcome is what one attack did to one target.
type outcome struct {
	attack attack
	side   string
	pair   int
	// refused is why the attack wasn't carried out.
	refused string
	// Memory before the attack, the most from then on, some time after the attack, and after a
	// restart.
	beforeMiB, peakMiB, afterMiB, restartedMiB float64
	// Times of the honest device's commands, until they were read and until their result was known.
	readBefore, readDuring, resultBefore, resultDuring figures
	livez, newcomers                                   figures
	// reconnected is how long commands took to arrive again after the broker was back; 0 if it was
	// there all the time.
	reconnected time.Duration
	tally       tally
	// notes are what the host counted.
	notes []string
}

// runPair attacks the host and the bare accept loop, in turns first.
func runPair(t *testing.T, programs string, a attack, pair int, l lengths) (both []outcome) {
	sides := []string{hostSide, bareSide}
	if pair%2 == 0 {
		sides = []string{bareSide, hostSide}
	}
	for _, side := range sides {
		// Its processes end with a test of its own.
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

// measure attacks a target.
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
	p.end()
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

// hostNotes returns what the host refused and said of devices.
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

// loadavg is the load of the machine in the last 1, 5 and 15 minutes.
func loadavg(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join("/proc", "loadavg"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
