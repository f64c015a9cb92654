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

// plan is what a run is to be.
type plan struct {
	seed  uint64
	queue string // classic or quorum
	// devices is how many there are, rate how many commands a second are published to all of them together.
	devices, rate int
	host          hostPlan
	load          load
	// mistaken says that the host has a mistake in it: it needn't stop in order.
	mistaken bool
	// node is the broker; its other virtual hosts suffer too.
	node *testenv.Node
	// patience is how long things may take to come to rest after the last fault.
	patience time.Duration
	// faults happen one after the other.
	faults []fault
}

// draw chooses count faults: all kinds in an order of the seed's, then again.
func draw(seed uint64, count int) []fault {
	order := rand.New(rand.NewPCG(seed, 2)).Perm(len(faults))
	var drawn []fault
	for i := range count {
		drawn = append(drawn, faults[order[i%len(order)]])
	}
	return drawn
}

// setting reads a number that the caller of the test may choose.
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

// TestChaos runs a host between a broker and devices, does what the seed says to all of them, and judges what came of it. It has the machine for
// itself: `make chaos` runs it.
func TestChaos(t *testing.T) {
	if os.Getenv("CHAOS_SEED") == "" {
		t.Skip("it is run by `make chaos`, which says CHAOS_SEED")
	}
	seed, count := setting(t, "CHAOS_SEED", 1), setting(t, "CHAOS_FAULTS", len(faults))
	for _, queue := range []string{"classic", "quorum"} {
		t.Run(queue, func(t *testing.T) {
			h := play(t, plan{
				seed: uint64(seed), queue: queue, devices: 200, rate: 400, load: usual, faults: draw(uint64(seed), count),
				// One knows answers by a pattern, the other doesn't.
				host: hostPlan{folder: smallDisk(t, "128m"), deliveryLimit: usualLimit, asking: Asking{Timeout: askingTimeout, Pattern: queue == "quorum"}}, node: testenv.NewNode(t), patience: time.Minute,
			})
			if r := tell(t, h); r.Broken() > 0 {
				t.Errorf("seed %d breaks promises", seed)
			}
		})
	}
}

// tell judges a run, logs its report, and keeps the run if that was asked for or a promise broke.
func tell(t *testing.T, h *History) *Report {
	r := NewReport(h)
	var text strings.Builder
	if err := r.Text(&text); err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + text.String())
	if r.Broken() > 0 || os.Getenv("CHAOS_KEEP") != "" {
		keep(t, fmt.Sprintf("%s-seed-%d", strings.ReplaceAll(t.Name(), "/", "-"), h.Seed), h, r)
	}
	return r
}

// keep leaves a run's history, which can be judged again, and its report in the folder that CHAOS_KEEP names.
func keep(t *testing.T, name string, h *History, r *Report) {
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

// play is one run.
func play(t *testing.T, p plan) *History {
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
		w.until("the host consumes from "+queue, func() bool { return w.consumed(queue) })
	}
	w.fleet = startFleet(t, "127.0.0.1:"+strconv.Itoa(w.host.devices), folder, p.devices)
	w.until("all devices are connected", func() bool { return len(w.fleet.online()) == p.devices })

	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for _, queue := range []string{results, summaries, status, poison, deadLetters} {
		clients.Go(func() {
			client(ctx, w.url, func(ch *amqp.Channel) error { return w.reader.read(ch, queue) })
		})
	}
	h := &History{Seed: p.seed, Queue: p.queue, Asking: p.host.asking}
	h.End.GoroutinesBefore = int(w.host.metric(ctx, "go_goroutines"))
	h.End.HeapBefore = uint64(w.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	w.backEnd = newBackEnd(rand.New(rand.NewPCG(p.seed, 1)), p)
	clients.Go(func() {
		client(ctx, w.url, func(ch *amqp.Channel) error { return w.backEnd.publish(ctx, ch) })
	})

	h.Faults = w.inflict(ctx, p.faults)
	healed := time.Now()
	w.backEnd.close()
	for !w.presenceTrue() && time.Since(healed) < min(healing, p.patience) {
		pause(ctx, 50*time.Millisecond)
	}
	h.End.Online, h.End.Settled = w.fleet.online(), time.Now()
	w.until("every command is confirmed", w.backEnd.drained)
	// What never comes is for the judge to tell.
	for end := time.Now().Add(p.patience); !w.backEnd.settled(w.reader.settled()) && time.Now().Before(end); {
		pause(ctx, 50*time.Millisecond)
	}
	w.until("the host is ready", w.host.ready)
	w.until("the queues are quiet", func() bool { return w.reader.quiet() > 2*time.Second })
	h.End.Goroutines = int(w.host.metric(ctx, "go_goroutines"))
	h.End.Heap = uint64(w.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	if p.mistaken {
		w.host.kill()
	} else {
		w.stop()
	}
	h.Reads, h.Answers = w.fleet.end(t)
	stop()
	clients.Wait()
	h.Commands, h.Results, h.Events, h.End.Poison = w.backEnd.history(), w.reader.results, w.reader.events, w.reader.poison
	h.Reports, h.End.DeadLetters = w.reader.reports, w.reader.dead
	h.Stops, h.SecondHosts = w.stops, w.secondHosts
	if w.host.store != "" {
		h.End.Unfinished = rows(t, w.host.store, unfinished, time.Time{})
	}
	return h
}

// inflict does the faults, spaced by the world's chance.
func (w *world) inflict(ctx context.Context, faults []fault) []Fault {
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

// presenceTrue says whether the events up to now tell which devices are connected now.
func (w *world) presenceTrue() bool {
	online := w.fleet.online()
	slices.Sort(online)
	return slices.Equal(online, w.reader.online())
}

// unfinished is how far rows have come that are neither confirmed nor held.
const unfinished = ledger.Confirmed - 1

// rows reads the ids of the ledger's rows that have come no further than last, of those that were
// changed since a time.
func rows(t *testing.T, path string, last ledger.State, since time.Time) []string {
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

// until waits for a condition. What the host says of itself is the state that a failure shows.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	await.That(w.t, what, func() (any, bool) {
		ok := cond()
		if ok {
			return nil, true
		}
		return fmt.Sprintf("%d devices are connected, %d commands have results; the host says %q", len(w.online()), w.reader.settled(), w.host.readiness()), false
	})
}

// consumed says whether the queue has a consumer.
func (w *world) consumed(queue string) bool {
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

// online is the addresses of the devices that are connected.
func (w *world) online() []string {
	if w.fleet == nil {
		return nil
	}
	return w.fleet.online()
}
