package main

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

const (
	benchCommands = 20000
	benchDevices  = 1000
	benchPairs    = 5
	benchWindow   = 1000
	benchDeadline = 2 * time.Minute
)

// BenchmarkWholePath carries persistent commands from a queue to devices and a confirmed result
// for each back, by the host, by a bare loop and by Watermill's Router alone in turn, each a
// process of its own. It reports the medians of the rounds' ratios: of their rates, of the CPU
// time that their processes used for a command, and of the 99th percentile of the time from
// publishing a command to its result at half of the host's rate; and how often the host allocates
// for a command. One operation is all rounds.
func BenchmarkWholePath(b *testing.B) {
	server := testenv.Broker(b)
	for b.Loop() {
		var rates, cpus, tails, hosts, allocations, watermills []float64
		for range benchPairs {
			bare := carryAll(b, server.VHost(b), startBare, calm)
			host := carryAll(b, server.VHost(b), startHost, calm)
			watermill := carryAll(b, server.VHost(b), startWatermill, calm)
			slow := carryPaced(b, server.VHost(b), startBare, calm, host.rate/2)
			late := carryPaced(b, server.VHost(b), startHost, calm, host.rate/2)
			b.Logf("host %.0f/s, bare loop %.0f/s, ratio %.2f; CPU a command %.1f and %.1f us, ratio %.2f; p99 at %.0f/s %s and %s, ratio %.2f; host: %.0f allocations; "+
				"Watermill alone %.0f/s, %.1f us, host/Watermill %.2f",
				host.rate, bare.rate, host.rate/bare.rate, host.cpu, bare.cpu, host.cpu/bare.cpu,
				host.rate/2, late, slow, float64(late)/float64(slow), host.allocations, watermill.rate, watermill.cpu, host.cpu/watermill.cpu)
			rates, cpus, tails = append(rates, host.rate/bare.rate), append(cpus, host.cpu/bare.cpu), append(tails, float64(late)/float64(slow))
			hosts, allocations = append(hosts, host.rate), append(allocations, host.allocations)
			watermills = append(watermills, host.cpu/watermill.cpu)
		}
		b.ReportMetric(median(rates), "rate-host/bare")
		b.ReportMetric(median(cpus), "CPU-host/bare")
		b.ReportMetric(median(watermills), "CPU-host/watermill")
		b.ReportMetric(median(tails), "p99-host/bare")
		b.ReportMetric(median(hosts), "commands/s")
		b.ReportMetric(median(allocations), "allocs/command")
	}
}

// BenchmarkWholePathLedger carries the same commands, with ids that are remembered, by a host
// whose ledger is in a database and by one whose ledger is in memory in turn. It reports the
// medians of the ratios of their rates, and of the CPU time that the database adds to a command in
// the host's process.
func BenchmarkWholePathLedger(b *testing.B) {
	server := testenv.Broker(b)
	database := testenv.NewPostgres(b)
	for name, store := range map[string]string{
		"sqlite":   "type = \"sqlite\"\npath = \"ledger.db\"",
		"postgres": fmt.Sprintf("type = \"postgres\"\nurl = %q", database.URL),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var ratios, added []float64
				for range benchPairs {
					memory := carryAll(b, server.VHost(b), remembering(`type = "memory"`), calm)
					stored := carryAll(b, server.VHost(b), remembering(store), calm)
					b.Logf("%s %.0f/s, memory %.0f/s, ratio %.2f; CPU a command %.1f and %.1f us, %.1f more",
						name, stored.rate, memory.rate, stored.rate/memory.rate, stored.cpu, memory.cpu, stored.cpu-memory.cpu)
					ratios, added = append(ratios, stored.rate/memory.rate), append(added, stored.cpu-memory.cpu)
				}
				b.ReportMetric(median(ratios), name+"/memory")
				b.ReportMetric(median(added), "us-added/command")
			}
		})
	}
}

// BenchmarkStuckDevice has one of the devices, which gets 2 % of the commands, read nothing, and
// compares what the others get with what they get when all read, in turn: the median of the ratios
// of their rates, and of the 99th percentiles at half of the calm rate.
func BenchmarkStuckDevice(b *testing.B) {
	server := testenv.Broker(b)
	for b.Loop() {
		var rates, tails []float64
		for range benchPairs {
			well := carryAll(b, server.VHost(b), startHost, favourite)
			stuck := carryAll(b, server.VHost(b), startHost, oneStuck)
			wellTail := carryPaced(b, server.VHost(b), startHost, favourite, well.rate/2)
			stuckTail := carryPaced(b, server.VHost(b), startHost, oneStuck, well.rate/2)
			b.Logf("others %.0f/s with one stuck, %.0f/s without, ratio %.2f; p99 at %.0f/s %s and %s, ratio %.2f",
				stuck.rate, well.rate, stuck.rate/well.rate, well.rate/2, stuckTail, wellTail, float64(stuckTail)/float64(wellTail))
			rates, tails = append(rates, stuck.rate/well.rate), append(tails, float64(stuckTail)/float64(wellTail))
		}
		b.ReportMetric(median(rates), "rate-stuck/calm")
		b.ReportMetric(median(tails), "p99-stuck/calm")
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// benchLoad says what a run is about.
type benchLoad struct {
	// special says that device 0 gets every 50th command, each of 2 kB, and that results of its
	// commands aren't counted.
	special bool
	// stuck says that it doesn't read.
	stuck bool
}

var (
	calm      = benchLoad{}
	favourite = benchLoad{special: true}
	oneStuck  = benchLoad{special: true, stuck: true}
)

const specialEvery = 50

func (l benchLoad) isSpecial(i int) bool { return l.special && i%specialEvery == 0 }

// command is the ith, as it is published.
func (l benchLoad) command(i int) amqp.Publishing {
	device, cmd := 1+i%(benchDevices-1), fmt.Sprintf("set %d", i)
	if l.isSpecial(i) {
		device, cmd = 0, fmt.Sprintf("set %02048d", i)
	}
	id := benchID(i)
	return amqp.Publishing{
		MessageId: id, ContentType: "application/json", DeliveryMode: amqp.Persistent,
		Body: fmt.Appendf(nil, `{"id":%q,"device":%q,"cmd":%q}`, id, benchAddress(device), cmd),
	}
}

// counted is how many of the commands are.
func (l benchLoad) counted() int {
	n := 0
	for i := range benchCommands {
		if !l.isSpecial(i) {
			n++
		}
	}
	return n
}

func benchID(i int) string { return fmt.Sprintf("c-%06d", i) }

func benchAddress(i int) string { return fmt.Sprintf("127.1.%d.%d", i/250, i%250+1) }

// carried is what came of a run.
type carried struct {
	rate        float64 // commands a second
	cpu         float64 // of the carrier for a command, in microseconds
	allocations float64 // of the carrier for a command, if it is the host
}

// carryAll fills the command queue, and then has the carrier take it as fast as it can, from the
// first line at a device to the last result.
func carryAll(b *testing.B, url string, start starter, l benchLoad) carried {
	b.Helper()
	s := newStage(b, url, start, l, func(publish func(i int) *amqp.DeferredConfirmation) {
		var last *amqp.DeferredConfirmation
		for i := range benchCommands {
			last = publish(i)
		}
		last.Wait()
	})
	defer s.close()
	<-s.fleet.first
	begun, cpu, allocations := time.Now(), s.carrier.cpu(), s.carrier.allocations()
	s.results(l.counted(), func(int) {})
	took := time.Since(begun)
	return carried{
		rate:        float64(l.counted()) / took.Seconds(),
		cpu:         float64((s.carrier.cpu() - cpu).Microseconds()) / benchCommands,
		allocations: (s.carrier.allocations() - allocations) / benchCommands,
	}
}

// carryPaced publishes commands at a rate and returns the 99th percentile of the times until their
// results.
func carryPaced(b *testing.B, url string, start starter, l benchLoad, rate float64) time.Duration {
	b.Helper()
	s := newStage(b, url, start, l, func(func(i int) *amqp.DeferredConfirmation) {})
	defer s.close()
	sent := make([]time.Time, benchCommands)
	took := make([]time.Duration, 0, benchCommands)
	var publishing sync.WaitGroup
	publishing.Go(func() {
		begun := time.Now()
		for i := range benchCommands {
			due := begun.Add(time.Duration(float64(i) / rate * float64(time.Second)))
			time.Sleep(time.Until(due))
			sent[i] = due // what a late publisher costs is part of it, for both
			s.publish(i)
		}
	})
	s.results(l.counted(), func(i int) { took = append(took, time.Since(sent[i])) })
	publishing.Wait()
	slices.Sort(took)
	return took[len(took)*99/100]
}

// stage is a run's queues, devices and carrier.
type stage struct {
	b       *testing.B
	conn    *amqp.Connection
	publish func(i int) *amqp.DeferredConfirmation
	fleet   *benchFleet
	carrier *carrier
}

// newStage has everything in place, and commands flow when it returns.
func newStage(b *testing.B, url string, start starter, l benchLoad, fill func(publish func(i int) *amqp.DeferredConfirmation)) *stage {
	b.Helper()
	conn, err := amqp.Dial(url)
	must(b, err)
	ch, err := conn.Channel()
	must(b, err)
	for _, queue := range []string{"commands", "results"} {
		_, err = ch.QueueDeclare(queue, true, false, false, false, nil)
		must(b, err)
		must(b, ch.ExchangeDeclare("bench."+queue, "topic", true, false, false, false, nil))
		must(b, ch.QueueBind(queue, queue, "bench."+queue, false, nil))
	}
	must(b, ch.Confirm(false))
	s := &stage{b: b, conn: conn, fleet: &benchFleet{first: make(chan struct{})}}
	s.publish = func(i int) *amqp.DeferredConfirmation {
		confirm, err := ch.PublishWithDeferredConfirm("", "commands", false, false, l.command(i))
		if err != nil {
			b.Errorf("publishing: %v", err)
		}
		return confirm
	}
	fill(s.publish)
	// An exclusive consumer keeps the carrier out until every device is connected.
	gate, err := conn.Channel()
	must(b, err)
	must(b, gate.Qos(1, 0, false))
	_, err = gate.Consume("commands", "gate", false, true, false, false, nil)
	must(b, err)
	s.carrier = start(b, url)
	s.fleet.connect(b, s.carrier.addr, l)
	must(b, gate.Close())
	return s
}

// results takes a number of results of counted commands and reports each.
func (s *stage) results(n int, each func(i int)) {
	ch, err := s.conn.Channel()
	must(s.b, err)
	defer ch.Close()
	deliveries, err := ch.Consume("results", "", true, false, false, false, nil)
	must(s.b, err)
	late := time.After(benchDeadline)
	for left := n; left > 0; {
		select {
		case d, ok := <-deliveries:
			if !ok {
				s.b.Fatalf("%d results are missing, and the channel is closed", left)
			}
			i, special := resultOf(s.b, d.Body)
			if special {
				continue
			}
			each(i)
			left--
		case <-late:
			s.b.Fatalf("%d of %d results are missing after %s", left, n, benchDeadline)
		}
	}
}

func (s *stage) close() {
	s.fleet.close()
	s.carrier.stop()
	s.conn.Close()
}

// benchFleet is devices that read lines.
type benchFleet struct {
	conns []net.Conn
	lines atomic.Int64
	once  sync.Once
	first chan struct{}
	work  sync.WaitGroup
}

func (f *benchFleet) connect(b *testing.B, addr string, l benchLoad) {
	for i := range benchDevices {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(benchAddress(i))}}
		conn, err := dialer.Dial("tcp4", addr)
		must(b, err)
		f.conns = append(f.conns, conn)
		if i == 0 && l.stuck {
			must(b, conn.(*net.TCPConn).SetReadBuffer(4096))
			continue
		}
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

func must(b testing.TB, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
