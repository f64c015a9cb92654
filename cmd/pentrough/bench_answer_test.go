package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports/device"
)

const (
	answerCommands = 100_000
	// answerWindow is two commands a device: one that is open and one that waits for its turn.
	answerWindow = 2 * benchDevices
)

// BenchmarkAnswers asks devices, which are a process of their own, one request at a time each: by
// a host that is fed from a memory topic, and by a bare loop that reads the same commands, asks
// over the same kind of sockets and makes the same results. It reports the median of the pairs'
// ratios of their rates.
func BenchmarkAnswers(b *testing.B) {
	folder := b.TempDir()
	if out, err := exec.Command("go", "build", "-o", folder, "../devsim").CombinedOutput(); err != nil {
		b.Fatalf("building: %v\n%s", err, out)
	}
	defer calmCollector()() // as run has it, for both
	for b.Loop() {
		var ratios, hosts []float64
		for range benchPairs {
			bare := askAll(b, folder, startBareAsker)
			host := askAll(b, folder, startHostAsker)
			b.Logf("host %.0f/s, bare loop %.0f/s, ratio %.2f", host, bare, host/bare)
			ratios, hosts = append(ratios, host/bare), append(hosts, host)
		}
		b.ReportMetric(median(ratios), "host/bare")
		b.ReportMetric(median(hosts), "answers/s")
	}
}

// answers counts results, all of which must be answers.
type answers struct {
	b     *testing.B
	count atomic.Int64
	done  chan struct{}
}

func (a *answers) take(result []byte) {
	r, err := device.ParseResult(result)
	if err != nil || r.State != device.StateAnswered {
		a.b.Errorf("%s: %v", result, err)
	}
	if a.count.Add(1) == answerCommands {
		close(a.done)
	}
}

// asker has devices connected to it. feed gives it all commands, and returns when it took them.
type asker struct {
	connected func() bool
	feed      func()
	stop      func()
}

func askAll(b *testing.B, folder string, start func(b *testing.B, addr string, a *answers) asker) float64 {
	b.Helper()
	a := &answers{b: b, done: make(chan struct{})}
	addr := freeAddress(b)
	s := start(b, addr, a)
	defer s.stop()
	devices := exec.Command(filepath.Join(folder, "devsim"), "-addr", addr, "-n", fmt.Sprint(benchDevices), "-from", benchAddress(0), "-reply", "ok {line}")
	devices.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(b, devices.Start())
	defer func() {
		must(b, devices.Process.Signal(syscall.SIGINT))
		_ = devices.Wait() // its code says nothing of the host
	}()
	for deadline := time.Now().Add(benchDeadline); !s.connected(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("the devices didn't connect")
		}
	}
	begun := time.Now()
	var feeding sync.WaitGroup
	feeding.Go(s.feed)
	defer feeding.Wait()
	select {
	case <-a.done:
	case <-time.After(benchDeadline):
		b.Fatalf("%d of %d answers after %s", a.count.Load(), answerCommands, benchDeadline)
	}
	return answerCommands / time.Since(begun).Seconds()
}

// request is the ith command. Devsim counts addresses up, so a device has the ith address after
// the first.
func request(i int) []byte {
	return fmt.Appendf(nil, `{"id":%q,"device":%q,"cmd":"get %d","reply":true}`, benchID(i), deviceAddress(i%benchDevices), i)
}

func deviceAddress(i int) string { return fmt.Sprintf("127.1.%d.%d", (i+1)/256, (i+1)%256) }

// feedHandler handles nothing. The test feeds commands with its publisher.
type feedHandler struct{ publish message.Publisher }

func (h *feedHandler) New(env handlers.Env) (_ handlers.Handler, err error) {
	h.publish, err = env.Publisher("memory:commands")
	return h, err
}

func (*feedHandler) Handle(*message.Message) ([]*message.Message, error) { return nil, nil }

func startHostAsker(b *testing.B, addr string, a *answers) asker {
	feed := &feedHandler{}
	set := plugin.Registered()
	set.Register("handler", plugin.Info{Name: "feed", Summary: "Feeds commands.", New: func() any { return feed }, Extra: handlers.Plugin{}})
	c, _, err := configs.Parse("answers.toml", fmt.Appendf(nil, `
[host]
admin = ""
[transport.memory]
type = "memory"
buffer = %[2]d
window = %[2]d
[transport.devices]
type = "tcp"
listen = %[1]q
[pipeline.commands]
from = "memory:commands"
to = "memory:results"
handler = { type = "deliver", devices = "devices" }
[pipeline.feed]
from = "memory:nothing"
handler = "feed"
`, addr, answerWindow), configs.Options{Plugins: set})
	must(b, err)
	registry := prometheus.NewRegistry()
	c.Router.Logger, c.Router.Registerer = slog.New(slog.DiscardHandler), registry
	host, err := router.New(c.Router)
	must(b, err)
	must(b, host.Start(context.Background()))
	// Results go to a topic that nobody reads; deliver's own metric counts them.
	var counting sync.WaitGroup
	stopped := make(chan struct{})
	counting.Go(func() {
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stopped:
				return
			case <-tick.C:
				if a.count.Store(int64(gathered(b, registry, "pentrough_deliver_results_total", "answered"))); a.count.Load() == answerCommands {
					close(a.done)
					return
				}
			}
		}
	})
	return asker{
		connected: func() bool { return gathered(b, registry, "pentrough_device_sessions", "") == benchDevices },
		feed: func() {
			for i := range answerCommands {
				if err := feed.publish.Publish("", message.NewMessage(benchID(i), request(i))); err != nil {
					b.Error(err)
					return
				}
			}
		},
		stop: func() {
			close(stopped)
			counting.Wait()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			must(b, host.Stop(ctx))
		},
	}
}

// gathered is the value of a metric, with a label of that value unless it is empty.
func gathered(b *testing.B, registry *prometheus.Registry, name, label string) float64 {
	families, err := registry.Gather()
	must(b, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if label == "" {
				return value
			}
			for _, l := range m.GetLabel() {
				if l.GetValue() == label {
					return value
				}
			}
		}
	}
	return 0
}

func startBareAsker(b *testing.B, addr string, a *answers) asker {
	l, err := net.Listen("tcp", addr)
	must(b, err)
	var work sync.WaitGroup
	var online atomic.Int64
	queues := map[string]chan device.Command{}
	for i := range benchDevices {
		queues[deviceAddress(i)] = make(chan device.Command, 2)
	}
	work.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			online.Add(1)
			work.Go(func() { bareAsk(b, conn, queues[conn.RemoteAddr().(*net.TCPAddr).IP.String()], a) })
		}
	})
	return asker{
		connected: func() bool { return online.Load() == benchDevices },
		feed: func() {
			for i := range answerCommands {
				c, err := device.ParseCommand(request(i), "")
				if err != nil {
					b.Error(err)
					return
				}
				queues[c.Device] <- c
			}
		},
		stop: func() {
			l.Close()
			for _, q := range queues {
				close(q)
			}
			work.Wait()
		},
	}
}

// bareAsk sends the requests to a device, one after the other.
func bareAsk(b *testing.B, conn net.Conn, commands <-chan device.Command, a *answers) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 256)
	var frame []byte
	for c := range commands {
		frame = append(append(frame[:0], c.Payload...), '\r', '\n')
		if _, err := conn.Write(frame); err != nil {
			b.Error(err)
			return
		}
		reply, err := r.ReadSlice('\n')
		if err != nil {
			if err != io.EOF {
				b.Error(err)
			}
			return
		}
		result := device.Result{
			ID: c.ID, Device: c.Device, State: device.StateAnswered, Reply: reply[:len(reply)-2], Encoding: device.Text, Host: "bare", Epoch: 1, Attempt: 1, Time: time.Now(),
		}
		a.take(result.AppendJSON(make([]byte, 0, 256)))
	}
}
