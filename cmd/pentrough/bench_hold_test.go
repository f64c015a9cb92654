package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports/device"
)

const (
	holdCommands = 100_000
	holdDevices  = 10_000
	// holdWindow is far more than a transaction of the host takes.
	holdWindow = 500
)

// BenchmarkHold has commands held for offline devices, and then has the devices, which
// are a process of their own, connect and get them: by a host that is fed from a memory topic, and
// by bare loops. One writes the rows that the host wrote, in transactions of the host's size. The
// other reads them, writes to the same kind of sockets, and marks the rows as the host left them,
// again in transactions of the host's size. It reports the medians of the pairs' ratios of their
// rates: holding is from the first command to the last result, draining from the first connection
// to the last row that is marked.
func BenchmarkHold(b *testing.B) {
	folder := b.TempDir()
	if out, err := exec.Command("go", "build", "-o", folder, "../devsim").CombinedOutput(); err != nil {
		b.Fatalf("building: %v\n%s", err, out)
	}
	defer calmCollector()() // as run has it, for both
	for b.Loop() {
		var holding, draining, held, drained []float64
		for range benchPairs {
			host, rows := holdHost(b, folder)
			bare := holdBare(b, folder, rows, host)
			b.Logf("holding: host %.0f/s, bare loop %.0f/s, ratio %.2f, %.0f rows a transaction; draining: host %.0f/s, bare loop %.0f/s, ratio %.2f, %.0f rows a transaction",
				host.held, bare.held, host.held/bare.held, host.holdBatch, host.drained, bare.drained, host.drained/bare.drained, host.drainBatch)
			holding, draining = append(holding, host.held/bare.held), append(draining, host.drained/bare.drained)
			held, drained = append(held, host.held), append(drained, host.drained)
		}
		b.ReportMetric(median(holding), "holding-host/bare")
		b.ReportMetric(median(draining), "draining-host/bare")
		b.ReportMetric(median(held), "held/s")
		b.ReportMetric(median(drained), "drained/s")
	}
}

// holdRates are what came of a run, in commands a second, and with how many rows a transaction on
// average.
type holdRates struct{ held, drained, holdBatch, drainBatch float64 }

// holdCommand is the ith command: each device gets one before one gets its second.
func holdCommand(i int) []byte {
	return fmt.Appendf(nil, `{"id":%q,"device":%q,"cmd":"set %d"}`, benchID(i), deviceAddress(i%holdDevices), i)
}

// countedStore counts what a ledger writes.
type countedStore struct {
	*ledger.SQLite

	mu                                     sync.Mutex
	transactions, changes, held, confirmed int
}

func (s *countedStore) Apply(ctx context.Context, b ledger.Batch, sync bool) error {
	err := s.SQLite.Apply(ctx, b, sync)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transactions++
	s.changes += len(b.Put) + len(b.Confirm) + len(b.Remove)
	s.confirmed += len(b.Confirm)
	for _, row := range b.Put {
		switch row.State {
		case ledger.Held:
			s.held++
		case ledger.Confirmed:
			s.confirmed++
		}
	}
	return nil
}

// batch is the average size of transactions since it was asked the last time.
func (s *countedStore) batch() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := float64(s.changes) / float64(s.transactions)
	s.changes, s.transactions = 0, 0
	return size
}

func (s *countedStore) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirmed == holdCommands
}

// watchHandler watches what devices connect, and handles nothing.
type watchHandler struct {
	watch   func(name string)
	devices device.Devices
}

func (h *watchHandler) New(env handlers.Env) (handlers.Handler, error) {
	var err error
	if h.devices, err = env.Devices("devices"); err != nil {
		return nil, err
	}
	h.devices.Watch(h.watch)
	return h, nil
}

func (*watchHandler) Handle(*message.Message) ([]*message.Message, error) { return nil, nil }

// holdingHost is a host whose ledger is in a file. Its handler early watches devices before
// deliver does.
type holdingHost struct {
	b        *testing.B
	host     *router.Host
	ledger   *ledger.Ledger
	registry *prometheus.Registry
	store    *countedStore
}

func startHoldingHost(b *testing.B, path, addr string, early, feed handlers.Config) *holdingHost {
	set := plugin.Registered()
	set.Register("handler", plugin.Info{Name: "early", Summary: "Is there before deliver.", New: func() any { return early }, Extra: handlers.Plugin{}})
	set.Register("handler", plugin.Info{Name: "feed", Summary: "Feeds commands.", New: func() any { return feed }, Extra: handlers.Plugin{}})
	c, _, err := configs.Parse("hold.toml", fmt.Appendf(nil, `
[host]
admin = ""
[store]
type = "sqlite"
path = %[3]q
[transport.memory]
type = "memory"
buffer = %[2]d
window = %[2]d
[transport.devices]
type = "tcp"
listen = %[1]q
[pipeline.arrival]
from = "memory:nothing"
handler = "early"
[pipeline.commands]
from = "memory:commands"
to = "memory:results"
middleware = ["dedup"]
handler = { type = "deliver", devices = "devices", offline = "hold", hold = { per_device = 1000, total = 200_000 } }
[pipeline.feed]
from = "memory:nothing"
handler = "feed"
`, addr, holdWindow, path), configs.Options{Plugins: set})
	must(b, err)
	h := &holdingHost{b: b, registry: prometheus.NewRegistry(), store: &countedStore{SQLite: ledger.NewSQLite(path, "gateway-1")}}
	h.ledger = ledger.Open(h.store, slog.New(slog.DiscardHandler))
	c.Router.Logger, c.Router.Registerer, c.Router.Ledger = slog.New(slog.DiscardHandler), h.registry, h.ledger
	<-h.ledger.Opened()
	h.host, err = router.New(c.Router)
	must(b, err)
	must(b, h.host.Start(context.Background()))
	return h
}

// await waits until that number of results is published and the condition holds.
func (h *holdingHost) await(results float64, more func() bool) {
	for deadline := time.Now().Add(benchDeadline); ; time.Sleep(20 * time.Millisecond) {
		n := gathered(h.b, h.registry, "pentrough_pipeline_published_total", "commands")
		if n >= results && more() {
			return
		}
		if time.Now().After(deadline) {
			h.b.Fatalf("%.0f of %.0f results after %s", n, results, benchDeadline)
		}
	}
}

func (h *holdingHost) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	must(h.b, h.host.Stop(ctx))
	must(h.b, h.ledger.Close(context.Background()))
}

// holdHost has a host hold and deliver all commands. It returns the rows as they were while all
// were held, with what was left of them in the end.
func holdHost(b *testing.B, folder string) (holdRates, []holdRow) {
	b.Helper()
	path, addr := filepath.Join(b.TempDir(), "host.db"), freeAddress(b)
	var once sync.Once
	first := make(chan time.Time, 1)
	arrival := &watchHandler{watch: func(string) { once.Do(func() { first <- time.Now() }) }}
	feed := &feedHandler{}
	h := startHoldingHost(b, path, addr, arrival, feed)
	var rates holdRates
	begun := time.Now()
	for i := range holdCommands {
		must(b, feed.publish.Publish("", message.NewMessage(benchID(i), holdCommand(i))))
	}
	h.await(holdCommands, func() bool { return true })
	rates.held = holdCommands / time.Since(begun).Seconds()
	rates.holdBatch = h.store.batch()
	rows := heldRows(b, path)

	defer startHoldDevices(b, folder, addr)()
	select {
	case begun = <-first:
	case <-time.After(benchDeadline):
		b.Fatal("no device connected")
	}
	h.await(2*holdCommands, h.store.ended)
	rates.drained = holdCommands / time.Since(begun).Seconds()
	rates.drainBatch = h.store.batch()
	h.stop()
	endedRows(b, path, rows)
	return rates, rows
}

// startHoldDevices has all devices connect. They are a process of their own, since a process has
// no more than that number of descriptors.
func startHoldDevices(b *testing.B, folder, addr string) (stop func()) {
	devices := exec.Command(filepath.Join(folder, "devsim"), "-addr", addr, "-n", fmt.Sprint(holdDevices), "-from", deviceAddress(0))
	devices.Stderr = os.Stderr
	devices.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(b, devices.Start())
	return func() {
		must(b, devices.Process.Signal(syscall.SIGINT))
		_ = devices.Wait() // its code says nothing of the host
	}
}
