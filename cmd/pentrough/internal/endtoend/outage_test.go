package endtoend

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// The outage of TestOutage: an hour in which each device connects again every 15 minutes, in less
// than a minute.
const (
	outageEvents = 2 * 4 // a device
	outageFirst  = "127.5.0.0"
	// outageGrowth is what the host may hold more at the end of the outage than in its second
	// quarter, and outageGarbage, in KiB, what of that may be waiting for the collector anyway.
	outageGrowth  = 1.1
	outageGarbage = 16 << 10
)

// TestOutage takes the broker away from a host whose devices come and go and send data all the
// time. The host's memory may not grow with the length of the outage, what it publishes afterwards
// is bounded, and it is the truth. PENTROUGH_OUTAGE_DEVICES is how many devices there are.
func TestOutage(t *testing.T) {
	t.Parallel()
	devices := 300
	if s := os.Getenv("PENTROUGH_OUTAGE_DEVICES"); s != "" {
		var err error
		if devices, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	backlog := devices / 2
	// Two cores can keep up with this.
	session := 3*time.Second + time.Duration(devices)*300*time.Microsecond
	folder, bin := t.TempDir(), programs(t)
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	// With the room for data that 18,000 devices have by default, as each has a part of it.
	file, port, admin := exampleFile(t, folder, `idle_timeout = "5m"`,
		fmt.Sprintf("idle_timeout = \"5m\"\nevents = { backlog = %d }\ndata = { total = %d }", backlog, max(100, devices*20_000/18_000)))
	host := testenv.Launch(t, folder, "host.log", []string{"AMQP_URL=" + cuttable}, filepath.Join(bin, "pentrough"), "run", "-c", file)
	fleet := func(n int, more ...string) *testenv.Program {
		return testenv.Launch(t, folder, fmt.Sprintf("devsim-%d.log", n), nil, filepath.Join(bin, "devsim"),
			append([]string{"-addr", "127.0.0.1:" + port, "-reconnect", "-n", strconv.Itoa(n), "-from", outageFirst}, more...)...)
	}
	first := fleet(devices, "-session", session.String(), "-rate", "1")
	first.Says(t, "devices connected")

	proxy.Down()
	began := time.Now()
	before := testenv.Metric(t, admin, "pentrough_device_sessions_ended_total")
	var quarters [4]int // the most memory in each
	await.That(t, "the events of an hour came", func() (any, bool) {
		done := 2 * (testenv.Metric(t, admin, "pentrough_device_sessions_ended_total") - before)
		q := min(4*done/(outageEvents*devices), 4)
		if q < len(quarters) {
			quarters[q] = max(quarters[q], testenv.Memory(t, host.Cmd.Process.Pid, testenv.Resident))
		}
		return done, q == len(quarters)
	})
	t.Logf("%d devices, %d events in an outage of %s: at most %d KiB resident in its quarters; %d events made needless, %d lost", devices, outageEvents*devices,
		time.Since(began).Round(time.Second), quarters, testenv.Metric(t, admin, "pentrough_device_events_coalesced_total"), testenv.Metric(t, admin, "pentrough_device_dropped_total"))
	if limit := outageGarbage + int(outageGrowth*float64(quarters[1])); quarters[3] > limit {
		t.Errorf("the host's memory grew: %d KiB at the end of the outage, %d in its second quarter", quarters[3], quarters[1])
	}
	healed := time.Now()
	proxy.Up()
	first.End(t, syscall.SIGINT)
	second := fleet(devices / 2)
	testenv.AwaitSessions(t, admin, devices/2, host.Ended)

	newest, late := presence(t, url, healed, devices, devices/2)
	t.Logf("%d events of the time before the broker was back, of %d devices", late, len(newest))
	if most := backlog + devices + 1000; late > most {
		t.Errorf("%d events of the outage were kept, more than %d", late, most)
	}
	host.End(t, syscall.SIGTERM)
	second.End(t, syscall.SIGINT)
}

// presence reads events until they say that the number online of devices is online. late is the
// number of events that are older than healed.
func presence(t *testing.T, url string, healed time.Time, all, online int) (newest map[string]device.Event, late int) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume("status", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	newest = map[string]device.Event{}
	for there := 0; len(newest) != all || there != online; {
		d := await.Receive(t, fmt.Sprintf("an event, after those of %d devices of %d, by which %d are there and not %d", len(newest), all, there, online), deliveries)
		var e device.Event
		if err := json.Unmarshal(d.Body, &e); err != nil {
			t.Fatalf("an event that isn't JSON: %q", d.Body)
		}
		if e.Device == "" {
			continue
		}
		if e.Time.Before(healed) {
			late++
		}
		old, known := newest[e.Device]
		if known && (e.Epoch < old.Epoch || e.Epoch == old.Epoch && e.Seq <= old.Seq) {
			continue
		}
		newest[e.Device] = e
		if e.Online {
			there++
		}
		if old.Online {
			there--
		}
	}
	return newest, late
}
