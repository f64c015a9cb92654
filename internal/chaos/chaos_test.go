package chaos

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	_ "modernc.org/sqlite" // to look into the host's ledger

	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// plan describes a run.
type plan struct {
	seed  uint64
	queue string // classic or quorum
	// devices is the number of devices. rate is how many commands a second are published to all of
	// them together.
	devices, rate int
	host          hostPlan
	load          load
	// mistaken reports that the host has a planted mistake, so it needn't stop in order.
	mistaken bool
	// node is the broker. Faults also affect its other virtual hosts.
	node *testenv.Node
	// patience is how long the run may take to settle after the last fault.
	patience time.Duration
	// faults happen one after the other.
	faults []fault
}

// drawFaults chooses count faults: each kind once, in an order that the seed decides, and then
// again.
func drawFaults(seed uint64, count int) []fault {
	order := rand.New(rand.NewPCG(seed, 2)).Perm(len(faults))
	var drawn []fault
	for i := range count {
		drawn = append(drawn, faults[order[i%len(order)]])
	}
	return drawn
}

// setting reads a number from an environment variable.
func setting(t *testing.T, name string, otherwise int) int {
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestChaos runs a host between a broker and devices, applies the faults that the seed decides,
// and judges the history. It needs the whole machine, so only `make chaos` runs it.
func TestChaos(t *testing.T) {
	if os.Getenv("CHAOS_SEED") == "" {
		t.Skip("it is run by `make chaos`, which says CHAOS_SEED")
	}
	seed, count := setting(t, "CHAOS_SEED", 1), setting(t, "CHAOS_FAULTS", len(faults))
	for _, queue := range []string{"classic", "quorum"} {
		t.Run(queue, func(t *testing.T) {
			h := runPlan(t, plan{
				seed: uint64(seed), queue: queue, devices: 200, rate: 400, load: usualLoad, faults: drawFaults(uint64(seed), count),
				// One knows answers by a pattern, the other doesn't.
				host: hostPlan{folder: smallDisk(t, "128m"), deliveryLimit: usualLimit, answering: Answering{Timeout: answerTimeout, Pattern: queue == "quorum"}}, node: testenv.NewNode(t), patience: time.Minute,
			})
			if r := reportRun(t, h); r.CountViolations() > 0 {
				t.Errorf("seed %d breaks promises", seed)
			}
		})
	}
}

// reportRun judges a run and logs its report. It keeps the run's files if CHAOS_KEEP is set or a
// promise is broken.
func reportRun(t *testing.T, h *History) *Report {
	r := NewReport(h)
	var text strings.Builder
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if r.CountViolations() > 0 || os.Getenv("CHAOS_KEEP") != "" {
		keepRun(t, fmt.Sprintf("%s-seed-%d", strings.ReplaceAll(t.Name(), "/", "-"), h.Seed), h, r)
	}
	return r
}

// keepRun writes a run's history and report to the folder that CHAOS_KEEP names. The history can
// be judged again.
func keepRun(t *testing.T, name string, h *History, r *Report) {
	folder := cmp.Or(os.Getenv("CHAOS_KEEP"), os.TempDir())
	for kind, of := range map[string]any{"history": h, "report": r} {
		text, err := json.MarshalIndent(of, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(folder, "chaos-"+name+"-"+kind+".json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Logf("the %s is in %s", kind, file)
	}
}

// runPlan does one run and returns its history.
func runPlan(t *testing.T, p plan) *History {
	folder := t.TempDir()
	w := &world{t: t, rng: rand.New(rand.NewPCG(p.seed, 0)), node: p.node, reader: newReader(t)}
	w.url = w.node.VHost(t)
	declareDeadLetters(t, w.url)
	proxy, url := testenv.Through(t, w.url)
	w.proxy = proxy
	w.host = newHost(t, p.host, folder, url, p.queue)
	w.host.start()
	w.until("the host is ready", w.host.ready)
	for _, queue := range []string{"device.commands", "device.groups"} {
		w.until("the host consumes from "+queue, func() bool { return w.hasConsumer(queue) })
	}
	w.fleet = startFleet(t, "127.0.0.1:"+strconv.Itoa(w.host.devices), folder, p.devices)
	w.until("all devices are connected", func() bool { return len(w.fleet.online()) == p.devices })

	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for _, queue := range []string{results, summaries, status, poison, deadLetters} {
		clients.Go(func() {
			runClient(ctx, w.url, func(ch *amqp.Channel) error { return w.reader.read(ch, queue) })
		})
	}
	h := &History{Seed: p.seed, Queue: p.queue, Answering: p.host.answering}
	h.End.GoroutinesBefore = int(w.host.metric(ctx, "go_goroutines"))
	h.End.HeapBefore = uint64(w.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	w.backEnd = newBackEnd(rand.New(rand.NewPCG(p.seed, 1)), p)
	clients.Go(func() {
		runClient(ctx, w.url, func(ch *amqp.Channel) error { return w.backEnd.publish(ctx, ch) })
	})

	h.Faults = w.injectFaults(ctx, p.faults)
	healed := time.Now()
	w.backEnd.close()
	for !w.presenceTrue() && time.Since(healed) < min(recoveryTime, p.patience) {
		pause(ctx, 50*time.Millisecond)
	}
	h.End.Online, h.End.Settled = w.fleet.online(), time.Now()
	w.until("every command is confirmed", w.backEnd.allConfirmed)
	// What never comes is for the judge to tell.
	for end := time.Now().Add(p.patience); !w.backEnd.allEnded(w.reader.countEnded()) && time.Now().Before(end); {
		pause(ctx, 50*time.Millisecond)
	}
	w.until("the host is ready", w.host.ready)
	w.until("the queues are quiet", func() bool { return w.reader.quietFor() > 2*time.Second })
	h.End.Goroutines = int(w.host.metric(ctx, "go_goroutines"))
	h.End.Heap = uint64(w.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	if p.mistaken {
		w.host.kill()
	} else {
		w.stopHost()
	}
	h.Reads, h.Answers = w.fleet.stopAll(t)
	stop()
	clients.Wait()
	h.Commands, h.Results, h.Events, h.End.Poison = w.backEnd.history(), w.reader.results, w.reader.events, w.reader.poison
	h.Reports, h.End.DeadLetters = w.reader.reports, w.reader.dead
	h.Stops, h.SecondHosts = w.stops, w.secondHosts
	if w.host.store != "" {
		h.End.Unfinished = ledgerRows(t, w.host.store, unfinished, time.Time{})
	}
	return h
}

// injectFaults applies the faults, with random pauses between them.
func (w *world) injectFaults(ctx context.Context, faults []fault) []Fault {
	var all []Fault
	pause(ctx, 2*time.Second)
	for _, chosen := range faults {
		f := Fault{Name: chosen.name, Begin: time.Now()}
		w.t.Logf("%s", f.Name)
		chosen.do(ctx, w, &f)
		f.End = time.Now()
		all = append(all, f)
		pause(ctx, time.Second+time.Duration(w.rng.IntN(2000))*time.Millisecond)
	}
	return all
}

// presenceTrue reports whether the events so far agree with the connections of now.
func (w *world) presenceTrue() bool {
	online := w.fleet.online()
	slices.Sort(online)
	return slices.Equal(online, w.reader.online())
}

// unfinished is the last state of rows that are neither confirmed nor held.
const unfinished = ledger.Confirmed - 1

// ledgerRows reads the ids of the ledger's rows in states up to last that changed since that time.
func ledgerRows(t *testing.T, path string, last ledger.State, since time.Time) []string {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.Query("SELECT id FROM ledger WHERE state <= ? AND changed >= ? ORDER BY number", last, since.UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = found.Close() }() // found.Err says it
	var ids []string
	for found.Next() {
		var id string
		if err := found.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// until waits for a condition. A failure shows the host's readiness page.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	await.That(w.t, what, func() (any, bool) {
		ok := cond()
		if ok {
			return nil, true
		}
		return fmt.Sprintf("%d devices are connected, %d commands have results; the host says %q", len(w.online()), w.reader.countEnded(), w.host.readiness()), false
	})
}

// hasConsumer reports whether the queue has a consumer.
func (w *world) hasConsumer(queue string) bool {
	conn, err := amqp.Dial(w.url)
	if err != nil {
		return false
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return false
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	return err == nil && q.Consumers > 0
}

// online returns the addresses of the connected devices.
func (w *world) online() []string {
	if w.fleet == nil {
		return nil
	}
	return w.fleet.online()
}
