package endtoend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// The load of TestStops: one command for each device at a time, four times a second.
const (
	stopDevices = 100
	stopFirst   = "127.3.0.1"
	stopPeriod  = time.Second / 4
	// stopBusy is how many further commands a host has carried out with all devices there, before
	// it is stopped amid the rest.
	stopBusy = 120
)

// How TestStops stops a host: with the broker there, with its connections cut and refused, or with
// nothing passing either way.
const (
	brokerUp      = "broker up"
	brokerDown    = "broker down"
	brokerStalled = "broker stalled"
)

// stopTimeout is the shutdown_timeout of a stop. With the broker away a stop can't be clean, and
// takes all of it.
var stopTimeout = map[string]time.Duration{brokerUp: 30 * time.Second, brokerDown: 1500 * time.Millisecond, brokerStalled: 1500 * time.Millisecond}

// exitUnclean is the exit code of a stop that ran into its deadline or lost something.
const exitUnclean = 3

// stopSlack is how much longer the end of a process may take to be seen on a machine that has
// other things to do.
const stopSlack = 30 * time.Second

// TestStops stops a host by SIGTERM while commands come, and starts it again, with the broker
// there and away in turn. Whatever was completed before a stop stays completed: no device reads a
// line twice, no command has two results, and after a clean stop no command is redelivered.
// PENTROUGH_STOPS is how many stops there are.
func TestStops(t *testing.T) {
	t.Parallel()
	stops := 4
	if s := os.Getenv("PENTROUGH_STOPS"); s != "" {
		var err error
		if stops, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	r := newStopRig(t)
	stopLoad := r.load()
	took := map[string][]time.Duration{}
	for round := range stops {
		way := []string{brokerUp, brokerDown, brokerUp, brokerStalled}[round%4]
		took[way] = append(took[way], r.stop(round, way))
	}
	published := stopLoad()
	r.start(brokerUp)
	r.settle(published)
	r.host.End(t, syscall.SIGTERM)
	r.devices.End(t, syscall.SIGINT)
	r.collect(brokerUp)
	for _, way := range []string{brokerUp, brokerDown, brokerStalled} {
		if all := took[way]; len(all) > 0 {
			slices.Sort(all)
			t.Logf("%s: %d stops, median %s, longest %s", way, len(all), all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
		}
	}
	states := map[string]int{}
	for _, res := range r.results {
		states[res.state]++
	}
	t.Logf("%d commands confirmed, results %v, repeated after a stop with the broker away: %d", published, states, r.repeats)
	if len(r.results) != published || states["sent"]+states["offline"] != published {
		t.Errorf("%d commands have a result of %d, by state %v", len(r.results), published, states)
	}
	checkRecord(t, r.record, states["sent"])
}

// stopRig is a host that is stopped and started, its devices, and the results of its commands.
type stopRig struct {
	t               *testing.T
	url             string // the broker, not through the proxy
	proxy           *testenv.Proxy
	bin, file, env  string
	folder, admin   string
	record          string
	devices, host   *testenv.Program
	starts, repeats int

	channel    *amqp.Channel
	deliveries <-chan amqp.Delivery
	results    map[string]stopResult
}

// stopResult is a command's first result, which run of the host it is of, and how that was
// stopped.
type stopResult struct {
	body  []byte
	state string
	run   int
	way   string
}

func newStopRig(t *testing.T) *stopRig {
	r := &stopRig{t: t, bin: programs(t), folder: t.TempDir(), results: map[string]stopResult{}}
	r.url = testenv.Broker(t).VHost(t)
	proxy, url := testenv.Through(t, r.url)
	r.proxy, r.env = proxy, "AMQP_URL="+url
	file, port, admin := exampleFile(t, r.folder, `"30s"`, `"${SHUTDOWN}"`)
	r.file, r.admin = file, admin
	r.record = filepath.Join(r.folder, "record")
	r.devices = testenv.Launch(t, r.folder, "devsim.log", nil, filepath.Join(r.bin, "devsim"),
		"-addr", "127.0.0.1:"+port, "-reconnect", "-n", strconv.Itoa(stopDevices), "-from", stopFirst, "-record", r.record)

	conn, err := amqp.Dial(r.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if r.channel, err = conn.Channel(); err != nil {
		t.Fatal(err)
	}
	// With the arguments of the example.
	bound := amqp.Table{"x-max-length": 1_000_000}
	if _, err := r.channel.QueueDeclare("results", true, false, false, false, bound); err != nil {
		t.Fatal(err)
	}
	if r.deliveries, err = r.channel.Consume("results", "", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts the host and returns when it is at work: devices are back, and it has carried
// commands out. way is how it will be stopped.
func (r *stopRig) start(way string) {
	r.t.Helper()
	r.starts++
	r.host = testenv.Launch(r.t, r.folder, fmt.Sprintf("host-%d.log", r.starts), []string{r.env, "SHUTDOWN=" + stopTimeout[way].String()},
		filepath.Join(r.bin, "pentrough"), "run", "-c", r.file)
	testenv.AwaitSessions(r.t, r.admin, stopDevices, r.host.Ended)
}

// stop starts a host, stops it while it works, and returns how long that took.
func (r *stopRig) stop(round int, way string) time.Duration {
	t := r.t
	t.Helper()
	r.start(way)
	r.collect(way)
	for before := len(r.results); len(r.results) < before+stopBusy; {
		r.take(way, await.Receive(t, "a result", r.deliveries))
	}
	want := 0
	switch way {
	case brokerDown:
		r.proxy.Down()
		want = exitUnclean
	case brokerStalled:
		r.proxy.Stall()
		want = exitUnclean
	}
	begun := time.Now()
	if err := r.host.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.host.Ended:
	case <-time.After(stopTimeout[way] + stopSlack):
		t.Fatalf("stop %d, %s: the host runs %s after its deadline\n%s", round, way, stopSlack, r.host.Output(t))
	}
	took := time.Since(begun)
	if got := r.host.Cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("stop %d, %s: exit code %d, want %d\n%s", round, way, got, want, r.host.Output(t))
	}
	// What is on its way is lost before anything passes again.
	r.proxy.Cut()
	r.proxy.Up()
	r.collect(way)
	return took
}

// collect takes all results that are there.
func (r *stopRig) collect(way string) {
	r.t.Helper()
	mark := uuid.NewString()
	if err := r.channel.Publish("", "results", true, false, amqp.Publishing{Type: "mark", MessageId: mark}); err != nil {
		r.t.Fatal(err)
	}
	for {
		d := await.Receive(r.t, "the mark behind all results", r.deliveries)
		if d.Type == "mark" && d.MessageId == mark {
			return
		}
		r.take(way, d)
	}
}

// settle takes results until each of the commands has one.
func (r *stopRig) settle(published int) {
	r.t.Helper()
	for len(r.results) < published {
		r.take(brokerUp, await.Receive(r.t, fmt.Sprintf("a result, after those of %d of %d commands", len(r.results), published), r.deliveries))
	}
}

// take reads one result.
func (r *stopRig) take(way string, d amqp.Delivery) {
	r.t.Helper()
	var body struct{ ID, State string }
	if err := json.Unmarshal(d.Body, &body); err != nil {
		r.t.Fatalf("a result that isn't JSON: %q", d.Body)
	}
	first, repeated := r.results[body.ID]
	if !repeated {
		r.results[body.ID] = stopResult{body: d.Body, state: body.State, run: r.starts, way: way}
		return
	}
	r.repeats++
	if !bytes.Equal(first.body, d.Body) {
		r.t.Errorf("two results for %s:\n%s\n%s", body.ID, first.body, d.Body)
	}
	if first.way == brokerUp {
		r.t.Errorf("%s has its result of run %d again in run %d, though the host was stopped cleanly after it", body.ID, first.run, r.starts)
	}
}

// load publishes commands with confirms. The returned function ends that, and returns how many are
// confirmed.
func (r *stopRig) load() (end func() int) {
	conn, err := amqp.Dial(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		r.t.Fatal(err)
	}
	// As the host declares them.
	if err := ch.ExchangeDeclare("device.commands", "topic", true, false, false, false, nil); err != nil {
		r.t.Fatal(err)
	}
	if _, err := ch.QueueDeclare("device.commands", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		r.t.Fatal(err)
	}
	if err := ch.QueueBind("device.commands", "#", "device.commands", false, nil); err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var publishing sync.WaitGroup
	var confirms []*amqp.DeferredConfirmation
	publishing.Go(func() {
		tick := time.NewTicker(stopPeriod)
		defer tick.Stop()
		for n := 0; ; n++ {
			device := netip.MustParseAddr(stopFirst)
			for i := range stopDevices {
				body := fmt.Sprintf(`{"device":%q,"cmd":"set %d"}`, device, n)
				c, err := ch.PublishWithDeferredConfirm("device.commands", device.String(), true, false,
					amqp.Publishing{MessageId: fmt.Sprintf("c-%d-%d", n, i), DeliveryMode: amqp.Persistent, Body: []byte(body)})
				if err != nil {
					r.t.Errorf("publishing: %v", err)
					return
				}
				confirms = append(confirms, c)
				device = device.Next()
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	end = sync.OnceValue(func() int {
		stop()
		publishing.Wait()
		for _, c := range confirms {
			if !c.Wait() {
				r.t.Error("the broker refused a command")
			}
		}
		conn.Close()
		return len(confirms)
	})
	r.t.Cleanup(func() { end() })
	return end
}
