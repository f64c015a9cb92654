// Package endtoend runs whole hosts, as users do, among fleets of devices, back ends and brokers,
// and kills all of them.
package endtoend

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// The fleet of TestFleet. PENTROUGH_FLEET_COMMANDS asks for more commands.
const (
	fleetDevices = 1000
	fleetFirst   = "127.1.0.0"
)

// TestFleet runs the example configuration as users do: the binaries, a fleet of fake devices,
// and a Python publisher with confirms. Every command must be at its device once and in order,
// with one result, whatever happens to the broker.
func TestFleet(t *testing.T) {
	t.Parallel()
	count := 4000
	if s := os.Getenv("PENTROUGH_FLEET_COMMANDS"); s != "" {
		var err error
		if count, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	bin := programs(t)
	node := testenv.NewNode(t)
	t.Run("broker killed and started again", func(t *testing.T) {
		runFleet(t, bin, node.VHost(t), count, func(func()) {
			node.Kill(t)
			t.Log("the broker was killed with -9")
			node.Start(t)
			t.Log("the broker is back")
		})
	})
	t.Run("host stopped and started again", func(t *testing.T) {
		runFleet(t, bin, node.VHost(t), count, func(restart func()) {
			for range 3 {
				restart()
			}
		})
	})
}

// programs returns a folder with pentrough and devsim, as users have them.
func programs(t *testing.T) string { return testenv.Programs(t, "./cmd/pentrough", "./cmd/devsim") }

// runFleet publishes count commands; trouble happens when half of them are confirmed. Commands
// that come while the devices are offline because the host was restarted may have the result
// offline; nothing else may.
func runFleet(t *testing.T, bin, url string, count int, trouble func(restart func())) {
	folder := t.TempDir()
	file, devices, adm := exampleFile(t, folder)
	runs := 0
	var host *testenv.Program
	startHost := func() {
		runs++
		host = testenv.Launch(t, folder, fmt.Sprintf("host-%d.log", runs), []string{"AMQP_URL=" + url}, filepath.Join(bin, "pentrough"), "run", "-c", file)
		testenv.AwaitReady(t, adm, host.Ended)
	}
	startHost()
	record := filepath.Join(folder, "record")
	sim := testenv.Launch(t, folder, "devsim.log", nil, filepath.Join(bin, "devsim"),
		"-addr", "127.0.0.1:"+devices, "-reconnect", "-n", strconv.Itoa(fleetDevices), "-from", fleetFirst, "-record", record)
	testenv.AwaitSessions(t, adm, fleetDevices, host.Ended)

	publisher := testenv.Launch(t, folder, "publisher.log", nil, "/usr/bin/python3", "testdata/publish.py",
		url, "device.commands", strconv.Itoa(count), strconv.Itoa(fleetDevices), fleetFirst)
	publisher.Says(t, fmt.Sprintf("published %d\n", count/2/1000*1000))
	trouble(func() {
		host.End(t, syscall.SIGTERM)
		startHost()
		testenv.AwaitSessions(t, adm, fleetDevices, host.Ended)
	})
	publisher.End(t, nil)
	t.Log(strings.TrimSpace(lastLine(publisher.Output(t))))

	results, sent := drainResults(t, url, count, runs > 1)
	host.End(t, syscall.SIGTERM)
	sim.End(t, syscall.SIGINT)
	t.Log("devsim:", strings.TrimSpace(lastLine(sim.Output(t))))
	t.Log("results:", results)
	checkRecord(t, record, sent)
}

// exampleFile writes the example configuration with ports and a store of its own, and with more
// replaced.
func exampleFile(t *testing.T, folder string, more ...string) (file, devices, adm string) {
	t.Helper()
	example, err := configs.Example(configs.Commands)
	if err != nil {
		t.Fatal(err)
	}
	devices, adm = testenv.Port(t), testenv.Port(t)
	text := strings.NewReplacer(append(more, `":8123"`, `":`+devices+`"`, "127.0.0.1:8080", "127.0.0.1:"+testenv.Port(t), "127.0.0.1:8222", "127.0.0.1:"+adm,
		`"pentrough.db"`, strconv.Quote(filepath.Join(folder, "ledger.db")))...).Replace(string(example))
	file = filepath.Join(folder, "commands.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, devices, adm
}

// drainResults takes results until every command has one, and checks them; the poison queue must
// be empty.
func drainResults(t *testing.T, url string, count int, away bool) (summary string, sent int) {
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	deliveries, err := ch.Consume("results", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := map[string][]byte{}
	states := map[string]int{}
	repeats := 0
	quiet := time.NewTimer(await.Patience)
	for done := false; !done; {
		select {
		case d := <-deliveries:
			var r struct{ ID, State string }
			if err := json.Unmarshal(d.Body, &r); err != nil {
				t.Fatalf("a result that isn't JSON: %q", d.Body)
			}
			if before, ok := first[r.ID]; ok {
				repeats++
				if !bytes.Equal(before, d.Body) {
					t.Errorf("two results for %s:\n%s\n%s", r.ID, before, d.Body)
				}
			} else {
				first[r.ID] = d.Body
				states[r.State]++
			}
			if len(first) == count {
				quiet.Reset(2 * time.Second) // for late repeats
			} else {
				quiet.Reset(await.Patience)
			}
		case <-quiet.C:
			done = true
		}
	}
	offline := 0
	if away {
		offline = states["offline"]
	}
	if len(first) != count || states["sent"]+offline != count {
		t.Errorf("%d distinct ids of %d, by state %v; the last was waited for %s", len(first), count, states, await.Patience)
	}
	if q, err := ch.QueueDeclarePassive("commands.poison", true, false, false, false, nil); err == nil && q.Messages != 0 {
		t.Errorf("%d messages in poison", q.Messages)
	}
	return fmt.Sprintf("%d distinct ids, by state %v, %d identical repeats, poison empty", len(first), states, repeats), states["sent"]
}

// checkRecord reads what the devices read: each its own commands, once, in order, sent in all.
func checkRecord(t *testing.T, record string, sent int) {
	f, err := os.Open(record)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	next := map[string]int{}
	lines := 0
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		address, line, _ := strings.Cut(s.Text(), "\t")
		n, err := strconv.Atoi(strings.TrimPrefix(line, "set "))
		if err != nil || n < next[address] {
			t.Errorf("device %s read %q, want set %d or later", address, line, next[address])
		}
		next[address] = n + 1
	}
	if lines != sent {
		t.Errorf("the devices read %d lines, but %d commands were sent", lines, sent)
	}
	t.Logf("devices read %d lines, each once and in order", lines)
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}
