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

	"github.com/pentrough/pentrough/internal/testenv"
)

// The size of a run.
const (
	devices = 200
	rate    = 400 // commands a second
	// patience is how long things may take to come to rest after the last fault.
	patience = time.Minute
)

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
			h := play(t, uint64(seed), count, queue)
			report := NewReport(h)
			var text strings.Builder
			if err := report.Text(&text); err != nil {
				t.Fatal(err)
			}
			t.Log("\n" + text.String())
			if report.Broken() > 0 {
				t.Errorf("seed %d breaks promises", seed)
			}
			if report.Broken() > 0 || os.Getenv("CHAOS_KEEP") != "" {
				keep(t, fmt.Sprintf("seed-%d-%s", seed, queue), h, report)
			}
		})
	}
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
func play(t *testing.T, seed uint64, count int, queue string) *History {
	rng := rand.New(rand.NewPCG(seed, 0))
	folder := t.TempDir()
	w := &world{t: t, rng: rng, node: testenv.NewNode(t), reader: newReader(t)}
	proxy, url := testenv.Through(t, w.node.URL())
	w.proxy = proxy
	w.host = newHost(t, folder, url, queue)
	w.host.start()
	await(t, "the host to be ready", w.host.ready)
	w.fleet = startFleet(t, "127.0.0.1:"+strconv.Itoa(w.host.devices), folder, devices)
	await(t, "all devices to be connected", func() bool { return len(w.fleet.online()) == devices })

	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for _, queue := range []string{results, status, poison} {
		clients.Go(func() {
			client(ctx, w.node.URL(), func(ch *amqp.Channel) error { return w.reader.read(ch, queue) })
		})
	}
	h := &History{Seed: seed, Queue: queue}
	h.End.GoroutinesBefore = int(w.host.metric(ctx, "go_goroutines"))
	h.End.HeapBefore = uint64(w.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	w.backEnd = newBackEnd(rand.New(rand.NewPCG(seed, 1)), devices, rate)
	clients.Go(func() {
		client(ctx, w.node.URL(), func(ch *amqp.Channel) error { return w.backEnd.publish(ctx, ch) })
	})

	h.Faults = w.inflict(ctx, count)
	healed := time.Now()
	w.backEnd.close()
	for !w.presenceTrue() && time.Since(healed) < healing {
		pause(ctx, 50*time.Millisecond)
	}
	h.End.Online, h.End.Settled = w.fleet.online(), time.Now()
	await(t, "every command to be confirmed", w.backEnd.drained)
	await(t, "every command to have a result or to be poison", func() bool { return w.reader.settled() >= w.backEnd.count() })
	await(t, "the host to be ready", w.host.ready)
	await(t, "the queues to be quiet", func() bool { return w.reader.quiet() > 2*time.Second })
	h.End.Goroutines = int(w.host.metric(ctx, "go_goroutines"))
	h.End.Heap = uint64(w.host.metric(ctx, "go_memstats_heap_inuse_bytes"))
	if err := w.host.stop(); err != nil {
		t.Errorf("the last stop: %v", err)
	}
	h.Reads = w.fleet.end(t)
	stop()
	clients.Wait()
	h.Commands, h.Results, h.Events, h.End.Poison = w.backEnd.history(), w.reader.results, w.reader.events, w.reader.poison
	h.End.Unfinished = unfinished(t, filepath.Join(folder, "ledger.db"))
	return h
}

// inflict does count faults, drawn and spaced by the world's chance.
func (w *world) inflict(ctx context.Context, count int) []Fault {
	var all []Fault
	pause(ctx, 2*time.Second)
	order := w.rng.Perm(len(faults))
	for i := range count {
		chosen := faults[order[i%len(order)]]
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

// unfinished reads the ids of the ledger's rows that aren't confirmed.
func unfinished(t *testing.T, path string) []string {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query("SELECT id FROM ledger WHERE state < 3")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }() // rows.Err says it
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return ids
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}
