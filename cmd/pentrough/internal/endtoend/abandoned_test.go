package endtoend

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// TestACommandThatNeverComesAgain kills a host when a device has read a command and not answered
// yet. Then the broker loses its copy, in one of the ways in which brokers do. The command
// has one result all the same, for its queue and for who asked; a copy that comes later gets that
// result, and the device gets nothing.
func TestACommandThatNeverComesAgain(t *testing.T) {
	t.Parallel()
	bin := programs(t)
	broker := testenv.Broker(t)
	for name, c := range map[string]struct {
		expiration string
		lose       func(*testing.T, *amqp.Channel)
	}{
		// Long enough for the command to be written before, on a busy machine too.
		"it expires": {"45000", func(t *testing.T, ch *amqp.Channel) {
			killed := time.Now()
			await.That(t, "the killed host's command expires", func() (any, bool) {
				q, err := ch.QueueDeclarePassive("device.commands", true, false, false, false, nil)
				return err, err == nil && q.Messages == 0 && q.Consumers == 0 && time.Since(killed) > 45*time.Second
			})
		}},
		"its queue is purged": {"", func(t *testing.T, ch *amqp.Channel) {
			await.That(t, "the killed host's command is back in its queue, and purged", func() (any, bool) {
				n, err := ch.QueuePurge("device.commands", false)
				return err, n > 0
			})
		}},
		"its queue is deleted": {"", func(t *testing.T, ch *amqp.Channel) {
			if _, err := ch.QueueDelete("device.commands", false, false, false); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			folder, url := t.TempDir(), broker.VHost(t)
			file, port, admin := exampleFile(t, folder, `retention = "10m"`, `retention = "10m"`+"\n"+`begun_timeout = "1s"`,
				`type = "deliver", `, `type = "deliver", reply = true, timeout = "5m", `)
			run := func(log string) *testenv.Program {
				host := testenv.Launch(t, folder, log, []string{"AMQP_URL=" + url}, filepath.Join(bin, "pentrough"), "run", "-c", file)
				testenv.AwaitReady(t, admin, host.Ended)
				return host
			}
			host := run("host-1.log")
			device, lines := dialDevice(t, port, "127.9.0.1")
			testenv.AwaitSessions(t, admin, 1, host.Ended)
			ch := channel(t, url)
			answers, err := ch.QueueDeclare("", false, true, true, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			publish := func(expiration string) {
				t.Helper()
				err := ch.Publish("device.commands", "127.9.0.1", true, false, amqp.Publishing{
					MessageId: "c-1", CorrelationId: "asked", ReplyTo: answers.Name, Expiration: expiration,
					Body: []byte(`{"device":"127.9.0.1","cmd":"open","group":"g"}`),
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			publish(c.expiration)
			if line := await.Receive(t, "the command at its device", lines); line != "open" {
				t.Fatalf("the device read %q", line)
			}
			if err := host.Cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			<-host.Ended
			_ = device.Close()
			c.lose(t, ch)
			host = run("host-2.log")
			_, lines = dialDevice(t, port, "127.9.0.1")

			results, err := ch.Consume("results", "", true, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			replies, err := ch.Consume(answers.Name, "", true, false, false, false, nil)
			if err != nil {
				t.Fatal(err)
			}
			first := await.Receive(t, "the result", results)
			var r struct {
				ID, Device, Group, State string
				Attempt                  int
			}
			if err := json.Unmarshal(first.Body, &r); err != nil {
				t.Fatal(err)
			}
			if r.ID != "c-1" || r.Device != "127.9.0.1" || r.Group != "g" || r.State != "unknown" || r.Attempt != 1 || first.CorrelationId != "asked" {
				t.Errorf("%s, correlation id %q", first.Body, first.CorrelationId)
			}
			reply := await.Receive(t, "the answer to who asked", replies)
			if !bytes.Equal(reply.Body, first.Body) || reply.CorrelationId != "asked" {
				t.Errorf("the answer is %s, correlation id %q", reply.Body, reply.CorrelationId)
			}
			publish("")
			if again := await.Receive(t, "the result again", results); !bytes.Equal(again.Body, first.Body) {
				t.Errorf("a copy's result is %s", again.Body)
			}
			host.End(t, syscall.SIGTERM)
			for line := range lines {
				t.Errorf("the device read %q after all", line)
			}
		})
	}
}

// dialDevice connects as a device of that address, and returns the lines that it reads until the
// connection ends.
func dialDevice(t *testing.T, port, address string) (net.Conn, <-chan string) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 30 * time.Second}
	conn, err := dialer.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	lines := make(chan string, 10)
	go func() {
		defer close(lines)
		for r := bufio.NewScanner(conn); r.Scan(); {
			lines <- strings.TrimSpace(r.Text())
		}
	}()
	return conn, lines
}

// channel returns a channel on a connection of its own.
func channel(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
