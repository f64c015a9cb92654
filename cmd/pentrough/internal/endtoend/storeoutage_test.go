package endtoend

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// TestAStoreOutageWithADeliveryLimit has commands wait in a queue whose delivery limit is 2, while
// the host's ledger can't be written to. Each has exactly one result afterwards: none was dropped
// by the broker. PENTROUGH_STORE_OUTAGE is how long the ledger is locked.
func TestAStoreOutageWithADeliveryLimit(t *testing.T) {
	t.Parallel()
	const commands = 50
	outage := 3 * time.Second
	if s := os.Getenv("PENTROUGH_STORE_OUTAGE"); s != "" {
		var err error
		if outage, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	bin := programs(t)
	node := testenv.NewNode(t)
	for name, trouble := range map[string]func(t *testing.T, restartHost func()){
		"alone":                   func(*testing.T, func()) {},
		"the broker is restarted": func(t *testing.T, _ func()) { node.Restart(t) },
		"the host is restarted":   func(_ *testing.T, restartHost func()) { restartHost() },
	} {
		t.Run(name, func(t *testing.T) {
			folder, url := t.TempDir(), node.VHost(t)
			file, port, admin := exampleFile(t, folder, `queue_type  = "quorum"`, `queue_type  = "quorum"`+"\n"+`delivery_limit = 2`, `"30s"`, `"5s"`, `idle_timeout = "5m"`, `idle_timeout = "30m"`)
			runs := 0
			var host *testenv.Program
			start := func() {
				runs++
				host = testenv.Launch(t, folder, fmt.Sprintf("host-%d.log", runs), []string{"AMQP_URL=" + url}, filepath.Join(bin, "pentrough"), "run", "-c", file)
			}
			start()
			testenv.AwaitReady(t, admin, host.Ended)
			read := make(chan string, 2*commands)
			connect := func() {
				_, lines := dialDevice(t, port, "127.9.0.3")
				go func() {
					for line := range lines {
						read <- line
					}
				}()
			}
			connect()
			testenv.AwaitSessions(t, admin, 1, host.Ended)
			unlock := lock(t, filepath.Join(folder, "ledger.db"))
			began := time.Now()
			ch := channel(t, url)
			for i := range commands {
				if err := ch.Publish("device.commands", "127.9.0.3", true, false, amqp.Publishing{
					MessageId: fmt.Sprintf("c-%d", i), DeliveryMode: amqp.Persistent, Body: fmt.Appendf(nil, `{"device":"127.9.0.3","cmd":"set %d"}`, i),
				}); err != nil {
					t.Fatal(err)
				}
			}
			host.Says(t, "the ledger doesn't work")
			time.Sleep(outage / 2) // the length of the outage is what is tested
			trouble(t, func() {
				if err := host.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				<-host.Ended
				start()
				await.That(t, "the host listens", func() (any, bool) {
					conn, err := net.Dial("tcp", "127.0.0.1:"+port)
					if err != nil {
						return err, false
					}
					return conn.Close(), true
				})
				connect()
			})
			time.Sleep(time.Until(began.Add(outage)))
			unlock()
			results, err := channel(t, url).Consume("results", "", true, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			states, seen := map[string]int{}, map[string]int{}
			for len(seen) < commands {
				d := await.Receive(t, fmt.Sprintf("a result, after those of %d commands", len(seen)), results)
				var r struct{ ID, State string }
				if err := json.Unmarshal(d.Body, &r); err != nil {
					t.Fatal(err)
				}
				seen[r.ID]++
				states[r.State]++
			}
			host.End(t, syscall.SIGTERM)
			for id, n := range seen {
				if n != 1 {
					t.Errorf("%s has %d results", id, n)
				}
			}
			if states["sent"] != commands || len(read) != commands {
				t.Errorf("results %v, and the device read %d commands", states, len(read))
			}
			t.Logf("results %v after an outage of %v", states, outage)
		})
	}
}
