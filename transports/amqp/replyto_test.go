package amqp

import (
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

// answersTo allows the queue "answers" in reply_to.
func answersTo(c *Config) { c.ReplyTo = []string{"answers"} }

func TestWhichQueuesAReplyToMayName(t *testing.T) {
	for _, c := range []struct {
		queue    string
		patterns []string
		allowed  bool
	}{
		{queue: "amq.gen-IzTdBjOFpFfaJMNRuCLyYw", allowed: true},
		{queue: "amq.rabbitmq.reply-to.g1h2AA5yZXBseUAxMjM0NTY3OA/A==.aGk=", allowed: true},
		{queue: "commands"},
		{queue: "amq.gen"},
		{queue: "amq.rabbitmq.reply-to"},
		{queue: "amq.other"},
		{queue: "my.amq.gen-x"},
		{queue: "AMQ.GEN-x"},
		{queue: ""},
		{queue: "replies.a", patterns: []string{"replies.*"}, allowed: true},
		{queue: "replies.a.b", patterns: []string{"replies.*"}, allowed: true},
		{queue: "replies.a/b", patterns: []string{"replies.*"}},
		{queue: "replies", patterns: []string{"replies.*"}},
		{queue: "my.replies.a", patterns: []string{"replies.*"}},
		{queue: "billing", patterns: []string{"replies.*", "billing"}, allowed: true},
		{queue: "amq.gen-x", patterns: []string{"replies.*"}, allowed: true},
		{queue: "commands", patterns: []string{"*"}, allowed: true},
		{queue: "own", patterns: []string{"*"}},
		{queue: "own", patterns: []string{"own"}},
		{queue: "amq.gen-own"},
	} {
		allowed := newReplyQueues(c.patterns, []transports.Topic{{Stream: queueStream("own")}, {Stream: queueStream("amq.gen-own")}, {}})
		if err := allowed.check(c.queue); (err == nil) != c.allowed {
			t.Errorf("reply_to %q with %q: %v", c.queue, c.patterns, err)
		}
	}
}

// A message can make the host write only to queues to which its sender could write too. If it
// names another queue, its result is still published.
func TestAReplyToReachesNoQueueOfOthers(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	for _, queue := range []string{"q", "commands", "others", "replies.a"} {
		peer.queue(queue, nil)
	}
	own, err := peer.ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(own.Name, brokerNamed) {
		t.Fatalf("the broker named a queue %q", own.Name)
	}
	direct, err := peer.ch.Consume(directReplyTo, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := prepare(t, config(url, onQueue, func(c *Config) { c.ReplyTo = []string{"replies.*", "comm*"} }))
	r.tr.answers.allowed = newReplyQueues(r.tr.config.ReplyTo, []transports.Topic{{Stream: queueStream("q")}, {Stream: queueStream("commands")}})
	r.begin()
	out, _ := r.take(t.Context(), r.subscriber(), "q")
	ask := func(replyTo string, headers amqp.Table) {
		peer.send("q", amqp.Publishing{Body: []byte("echo"), ReplyTo: replyTo, CorrelationId: replyTo, Headers: headers})
		d := next(t, out)
		result := outgoing(string(d.Payload))
		for key, value := range d.Metadata { // as passthrough does
			if key != transports.ReplyTo {
				result.Metadata[key] = value
			}
		}
		result.SetContext(d.Message().Context())
		d.Settle(&transports.Outcome{Messages: []*message.Message{result}})
	}
	refused := []string{"commands", "others", "q"}
	for range 2 {
		for _, queue := range refused {
			ask(queue, nil)
		}
	}
	r.counts("replies that are refused", 6, r.tr.metrics.replies.WithLabelValues("refused"))
	// The broker would route copies of the answer by these headers, with the host's permissions.
	for _, header := range []string{"CC", "BCC"} {
		ask(own.Name, amqp.Table{header: []any{"others"}})
		if got := peer.get(own.Name); string(got.Body) != "echo" {
			t.Errorf("received %q", got.Body)
		}
		peer.get("others") // the copy of the message, with the sender's
	}
	ask("replies.a", nil)
	if got := peer.get("replies.a"); string(got.Body) != "echo" {
		t.Errorf("received %q", got.Body)
	}
	ask(directReplyTo, nil)
	if got := next(t, direct); string(got.Body) != "echo" {
		t.Errorf("received %q", got.Body)
	}
	r.counts("replies that are sent", 4, r.tr.metrics.replies.WithLabelValues("sent"))
	for _, queue := range refused {
		if n := peer.depth(queue); n != 0 {
			t.Errorf("queue %s has %d messages", queue, n)
		}
	}
	r.logs(1, "refusing a reply_to")
}

func TestPatternsOfReplyTo(t *testing.T) {
	for pattern, want := range map[string]string{
		"replies.*": "", "[a-c]*": "", "billing": "",
		"":          `reply_to[1]: "" is empty`,
		"replies.[": `reply_to[1]: "replies.[" is not a pattern`,
		`replies.\`: `is not a pattern`,
	} {
		err := config("amqp://127.0.0.1/", func(c *Config) { c.ReplyTo = []string{"ok", pattern} }).Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}
