package goplugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/configs"
	_ "github.com/pentrough/pentrough/handlers/passthrough"
	_ "github.com/pentrough/pentrough/handlers/process"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/memory"
	"github.com/pentrough/pentrough/transports/transporttest"
)

const (
	pairs    = 5
	keys     = 100
	deadline = time.Minute
)

// BenchmarkPlugins carries messages from a memory topic through a handler that is a process to
// another memory topic. It reports the median ratio of messages a CPU-second, of host and process
// together, and the host's own kind's rate and CPU a message.
func BenchmarkPlugins(b *testing.B) {
	untouched := make([]byte, 16<<20) // as a host has it, for both
	defer runtime.KeepAlive(untouched)
	for _, c := range []struct{ size, n int }{{200, 100_000}, {64 << 10, 3_000}} {
		b.Run(fmt.Sprintf("%dB", c.size), func(b *testing.B) {
			payload := []byte(strings.Repeat("x", c.size))
			for b.Loop() {
				var ratios, cpus, rates []float64
				bare, _ := carry(b, `"passthrough"`, payload, c.n)
				b.Logf("passthrough %.1f us CPU", us(bare, c.n))
				for range pairs {
					peerCPU, peerTook := carry(b, `"peer"`, payload, c.n)
					cpu, took := carry(b, process(), payload, c.n)
					b.Logf("process %.1f us CPU, %.0f/s; peer %.1f us CPU, %.0f/s", us(cpu, c.n), rate(took, c.n), us(peerCPU, c.n), rate(peerTook, c.n))
					ratios, cpus, rates = append(ratios, peerCPU.Seconds()/cpu.Seconds()), append(cpus, us(cpu, c.n)), append(rates, rate(took, c.n))
				}
				b.ReportMetric(median(ratios), "process/peer")
				b.ReportMetric(median(cpus), "us-CPU/message")
				b.ReportMetric(median(rates), "messages/s")
			}
		})
	}
}

// BenchmarkCall is one message at a time, from publishing to the ack of what came of it, and what
// a crash costs: the time until the next message is handled.
func BenchmarkCall(b *testing.B) {
	const calls, crashes = 5000, 15
	for b.Loop() {
		h := start(b, process())
		var times, restarts []time.Duration
		for range calls {
			begun := time.Now()
			h.send(b, "d", []byte("hello"))
			(<-h.out).Ack()
			times = append(times, time.Since(begun))
		}
		for i := range crashes { // each is the first since a message was answered
			h.send(b, "culprit", []byte("die"))
			h.until(b, i+1)
			begun := time.Now()
			h.send(b, "d", []byte("hello"))
			(<-h.out).Ack()
			restarts = append(restarts, time.Since(begun))
		}
		h.stop(b)
		slices.Sort(times)
		slices.Sort(restarts)
		b.ReportMetric(float64(times[calls/2].Microseconds()), "us/call")
		b.ReportMetric(float64(times[calls*99/100].Microseconds()), "p99-us/call")
		b.ReportMetric(float64(restarts[crashes/2].Milliseconds()), "ms/restart")
		b.ReportMetric(float64(restarts[crashes-1].Milliseconds()), "max-ms/restart")
	}
}

func us(d time.Duration, n int) float64   { return d.Seconds() * 1e6 / float64(n) }
func rate(d time.Duration, n int) float64 { return float64(n) / d.Seconds() }

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

func process() string {
	return fmt.Sprintf(`{ type = "process", command = [%q], env = { %s = "process" }, crashes = 1 }`, os.Args[0], kindOf)
}

// running is a host with one pipeline.
type running struct {
	host *router.Host
	pub  message.Publisher
	out  <-chan *message.Message
	done func() error

	registry *prometheus.Registry
}

func start(b *testing.B, handler string) *running {
	b.Helper()
	ends := &ends{}
	set := plugin.Registered()
	set.Register("transport", plugin.Info{Name: "ends", Summary: "Memory.", New: func() any { return ends }, Extra: transports.Plugin{}})
	set.Register("handler", plugin.Info{Name: "peer", Summary: "The peer.", New: func() any { return &peerConfig{} }})
	c, _, err := configs.Parse("bench.toml", fmt.Appendf(nil, `
[host]
admin = ""
[transport.ends]
type = "ends"
[pipeline.p]
from = "ends:in"
to = "ends:out"
handler = %s
on_error = "drop"
`, handler), configs.Options{Plugins: set})
	must(b, err)
	registry := prometheus.NewRegistry()
	c.Router.Logger, c.Router.Registerer = slog.New(slog.DiscardHandler), registry
	host, err := router.New(c.Router)
	must(b, err)
	sub, err := ends.Subscriber(transports.Consumer{Pipeline: "bench"})
	must(b, err)
	out, err := transporttest.Stock(sub).Subscribe(context.Background(), "out")
	must(b, err)
	must(b, host.Start(context.Background()))
	pub, err := ends.Publisher(transports.Producer{})
	must(b, err)
	return &running{host, pub, out, sub.Close, registry}
}

func (r *running) send(b *testing.B, device string, payload []byte) {
	msg := message.NewMessage(fmt.Sprint(time.Now().UnixNano()), payload)
	msg.Metadata = message.Metadata{"device": device, "type": "data"}
	must(b, r.pub.Publish("in", msg))
}

// until waits until the process has ended n times.
func (r *running) until(b *testing.B, ends int) {
	b.Helper()
	for begun := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		if r.failures(b) >= ends {
			return
		}
		if time.Since(begun) > deadline {
			b.Fatal("the process didn't end")
		}
	}
}

// failures is how often the process ended.
func (r *running) failures(b *testing.B) int {
	families, err := r.registry.Gather()
	must(b, err)
	for _, f := range families {
		if f.GetName() == "pentrough_process_failures_total" {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	return 0
}

func (r *running) stop(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	must(b, r.done())
	must(b, r.host.Stop(ctx))
}

// carry returns the CPU time of host and process, and how long it took.
func carry(b *testing.B, handler string, payload []byte, n int) (cpu, took time.Duration) {
	b.Helper()
	before := used(b)
	r := start(b, handler)
	begun := time.Now()
	var feeding sync.WaitGroup
	feeding.Go(func() {
		for i := range n {
			r.send(b, fmt.Sprint("10.0.0.", i%keys), payload)
		}
	})
	for range n {
		(<-r.out).Ack()
	}
	took = time.Since(begun)
	feeding.Wait()
	r.stop(b)
	return used(b) - before, took
}

// used is the CPU time of this process and of those that it has waited for.
func used(b *testing.B) (all time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		must(b, unix.Getrusage(who, &u))
		all += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return all
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// ends is a memory transport that can be reached from outside of the host.
type ends struct{ transports.Transport }

func (e *ends) Topic(name string, use transports.Use) (transports.Topic, error) {
	return e.config().Topic(name, use)
}

func (e *ends) New(env transports.Env) (transports.Transport, error) {
	var err error
	e.Transport, err = e.config().New(env)
	return e.Transport, err
}

func (e *ends) config() *memory.Config { return &memory.Config{Buffer: 1000, Window: 1000} }
