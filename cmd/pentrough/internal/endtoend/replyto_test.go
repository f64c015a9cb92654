package endtoend

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// A pipeline that returns what it gets, and one with a queue that its senders may not reach. Each
// has a transport of its own, which names the broker in its own way.
const echoFile = `
host.admin = "127.0.0.1:ADMIN"

[transport.open]
type     = "amqp"
url      = "${AMQP_URL}"
reply_to = ["*"]

[transport.closed]
type = "amqp"
url  = "${OTHER_URL}"
topic.orders.queue = "commands"

[pipeline.echo]
from     = "open:questions"
handler  = { type = "expr", remove = ["reply_to"] }
on_error = "drop"
to       = "open:results"

[pipeline.commands]
from     = "closed:orders"
on_error = "drop"
to       = "closed:done"
`

// TestAReplyToReachesNoPipeline asks for replies at a queue that another pipeline consumes.
func TestAReplyToReachesNoPipeline(t *testing.T) {
	t.Parallel()
	folder, bin := t.TempDir(), programs(t)
	url := testenv.Broker(t).VHost(t)
	admin := testenv.Port(t)
	file := filepath.Join(folder, "echo.toml")
	if err := os.WriteFile(file, []byte(strings.Replace(echoFile, "ADMIN", admin, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	other := strings.Replace(url, "127.0.0.1", "localhost", 1)
	host := testenv.Launch(t, folder, "host.log", []string{"AMQP_URL=" + url, "OTHER_URL=" + other}, filepath.Join(bin, "pentrough"), "run", "-c", file)
	testenv.AwaitReady(t, admin, host.Ended)
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := ch.QueueDeclare("answers", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, queue := range []string{"commands", answers.Name} {
		if err := ch.Publish("pentrough", "questions", false, false, amqp.Publishing{Body: []byte("open"), ReplyTo: queue, CorrelationId: queue}); err != nil {
			t.Fatal(err)
		}
	}
	// The second answer comes after the first was refused.
	take := func(queue string) (body string) {
		await.That(t, "queue "+queue+" has a message", func() (any, bool) {
			d, ok, err := ch.Get(queue, true)
			if err != nil {
				t.Fatal(err)
			}
			body = string(d.Body)
			return host.Output(t), ok
		})
		return body
	}
	for _, queue := range []string{answers.Name, "results", "results"} {
		if got := take(queue); got != "open" {
			t.Errorf("queue %s has %q", queue, got)
		}
	}
	if n := testenv.Metric(t, admin, `pentrough_amqp_replies_total{outcome="refused",transport="open"}`); n != 1 {
		t.Errorf("%d replies were refused", n)
	}
	if _, ok, err := ch.Get("done", true); ok || err != nil {
		t.Errorf("the other pipeline got something: %v, %v", ok, err)
	}
	host.End(t, syscall.SIGTERM)
	if n := strings.Count(host.Output(t), "refusing a reply_to"); n != 1 {
		t.Errorf("%d lines of the log refuse it:\n%s", n, host.Output(t))
	}
}
