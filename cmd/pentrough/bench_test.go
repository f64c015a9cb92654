package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/router"
)

const (
	benchCommands = 20000
	benchDevices  = 1000
	benchPairs    = 5
	benchWindow   = 1000
	benchDeadline = 2 * time.Minute
)

// BenchmarkWholePath carries persistent commands from a queue to devices and a confirmed result for each back, by the host and by
// a bare loop in turn, and reports the median of the pairs' ratios. One operation is one pair.
func BenchmarkWholePath(b *testing.B) {
	server := testenv.Broker(b)
	for b.Loop() {
		var ratios, hosts []float64
		for range benchPairs {
			bare := benchRun(b, server.VHost(b), startBare)
			host := benchRun(b, server.VHost(b), startHost)
			b.Logf("host %.0f/s, bare loop %.0f/s, ratio %.2f", host, bare, host/bare)
			ratios, hosts = append(ratios, host/bare), append(hosts, host)
		}
		slices.Sort(ratios)
		slices.Sort(hosts)
		b.ReportMetric(ratios[benchPairs/2], "host/bare")
		b.ReportMetric(hosts[benchPairs/2], "commands/s")
	}
}

// BenchmarkWholePathLedger carries the same commands, with ids that are remembered, by a host whose ledger is in a database and by one
// whose ledger is in memory in turn.
func BenchmarkWholePathLedger(b *testing.B) {
	server := testenv.Broker(b)
	database := testenv.NewPostgres(b)
	for name, open := range map[string]func(b *testing.B) ledger.Store{
		"sqlite":   func(b *testing.B) ledger.Store { return ledger.NewSQLite(filepath.Join(b.TempDir(), "ledger.db")) },
		"postgres": func(*testing.B) ledger.Store { return ledger.NewPostgres(database.URL, rand.Text()) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var ratios []float64
				for range benchPairs {
					memory := benchRun(b, server.VHost(b), remembering(nil))
					stored := benchRun(b, server.VHost(b), remembering(open))
					b.Logf("%s %.0f/s, memory %.0f/s, ratio %.2f", name, stored, memory, stored/memory)
					ratios = append(ratios, stored/memory)
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[benchPairs/2], name+"/memory")
			}
		})
	}
}

// remembering starts a host with dedup and a ledger in a store, or in memory.
func remembering(open func(b *testing.B) ledger.Store) func(b *testing.B, url string) (string, func()) {
	return func(b *testing.B, url string) (string, func()) {
		if open == nil {
			return benchHost(b, url, `middleware = ["dedup"]`, ledger.New())
		}
		l := ledger.Open(open(b), slog.New(slog.DiscardHandler))
		<-l.Opened()
		addr, stop := benchHost(b, url, `middleware = ["dedup"]`, l)
		return addr, func() {
			stop()
			must(b, l.Close())
		}
	}
}

// benchRun fills the command queue, starts a carrier and returns commands a second, from the first line at a device to the last
// result in the queue.
func benchRun(b *testing.B, url string, start func(b *testing.B, url string) (addr string, stop func())) float64 {
	b.Helper()
	conn, err := amqp.Dial(url)
	must(b, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(b, err)
	for _, queue := range []string{"commands", "results"} {
		_, err = ch.QueueDeclare(queue, true, false, false, false, nil)
		must(b, err)
		must(b, ch.ExchangeDeclare("bench."+queue, "topic", true, false, false, false, nil))
		must(b, ch.QueueBind(queue, queue, "bench."+queue, false, nil))
	}
	must(b, ch.Confirm(false))
	var last *amqp.DeferredConfirmation
	for i := range benchCommands {
		id := fmt.Sprintf("c-%06d", i)
		body := fmt.Sprintf(`{"id":%q,"device":%q,"cmd":"set %d"}`, id, benchAddress(i%benchDevices), i)
		last, err = ch.PublishWithDeferredConfirm("", "commands", false, false, amqp.Publishing{
			MessageId: id, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: []byte(body),
		})
		must(b, err)
	}
	last.Wait()
	// An exclusive consumer keeps the carrier out until every device is connected.
	gate, err := conn.Channel()
	must(b, err)
	must(b, gate.Qos(1, 0, false))
	_, err = gate.Consume("commands", "gate", false, true, false, false, nil)
	must(b, err)

	devices := &benchFleet{first: make(chan struct{})}
	addr, stop := start(b, url)
	defer stop()
	defer devices.close()
	devices.connect(b, addr)
	must(b, gate.Close())
	<-devices.first
	begun := time.Now()
	for {
		q, err := ch.QueueDeclarePassive("results", true, false, false, false, nil)
		must(b, err)
		if q.Messages >= benchCommands {
			break
		}
		if time.Since(begun) > benchDeadline {
			b.Fatalf("%d of %d results after %s", q.Messages, benchCommands, benchDeadline)
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(begun)
	if got := devices.lines.Load(); got != benchCommands {
		b.Fatalf("devices read %d lines of %d", got, benchCommands)
	}
	return benchCommands / took.Seconds()
}

func benchAddress(i int) string { return fmt.Sprintf("127.1.%d.%d", i/250, i%250+1) }

// benchFleet is devices that read lines and count them.
type benchFleet struct {
	conns []net.Conn
	lines atomic.Int64
	once  sync.Once
	first chan struct{}
	work  sync.WaitGroup
}

func (f *benchFleet) connect(b *testing.B, addr string) {
	for i := range benchDevices {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(benchAddress(i))}}
		conn, err := dialer.Dial("tcp4", addr)
		must(b, err)
		f.conns = append(f.conns, conn)
		f.work.Go(func() {
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				f.lines.Add(1)
				f.once.Do(func() { close(f.first) })
			}
		})
	}
}

func (f *benchFleet) close() {
	for _, conn := range f.conns {
		conn.Close()
	}
	f.work.Wait()
}

// startHost runs the host itself, as `pentrough run` would, without a ledger.
func startHost(b *testing.B, url string) (string, func()) { return benchHost(b, url, "", nil) }

// benchHost runs the host with more settings of the pipeline.
func benchHost(b *testing.B, url, more string, l *ledger.Ledger) (string, func()) {
	addr := freeAddress(b)
	c, _, err := configs.Parse("bench.toml", fmt.Appendf(nil, `
[host]
admin = ""
log = { level = "error" }
[transport.broker]
type = "amqp"
url = %q
prefetch = %d
confirm_window = %d
[transport.broker.topic.commands]
exchange = "bench.commands"
queue = "commands"
[transport.broker.topic.results]
exchange = "bench.results"
queue = "results"
[transport.devices]
type = "tcp"
listen = %q
[pipeline.commands]
from = "broker:commands"
to = "broker:results"
handler = { type = "deliver", devices = "devices" }
on_error = "drop"
%s
`, url, benchWindow, benchWindow, addr, more), configs.Options{})
	must(b, err)
	c.Router.Logger = slog.New(slog.DiscardHandler)
	if l != nil {
		c.Router.Ledger = l
	}
	host, err := router.New(c.Router)
	must(b, err)
	must(b, host.Start(context.Background()))
	return addr, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		must(b, host.Stop(ctx))
	}
}

func freeAddress(b *testing.B) string {
	port, err := testenv.FreePort()
	must(b, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
