package amqp

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

func TestTopicsAreDeclaredBeforeTheFirstMessage(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	r := prepare(t, config(cuttable))
	early := r.publisher("early")
	r.begin()
	late := r.publisher("late")
	for _, topic := range []string{"early", "late"} {
		r.until("queue "+topic+" is there", func() bool { return peer.has(topic) })
		r.well("topic " + topic)
	}
	// Each connection begins with a declaration.
	if _, err := peer.ch.QueueDelete("early", false, false, false); err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	r.until("queue early is back", func() bool { return peer.has("early") })
	if err := early.Publish("early", outgoing("one")); err != nil {
		t.Error(err)
	}
	// If no publisher uses a topic, its state isn't reported.
	if err := late.Close(); err != nil {
		t.Error(err)
	}
	if err := late.Publish("late", outgoing("one")); err == nil {
		t.Error("Publish works after Close")
	}
	r.until("topic late is no part", func() bool {
		err := r.health("topic late")
		return err != nil && strings.Contains(err.Error(), "there is no part")
	})
	long := strings.Repeat("x", 300)
	if _, err := r.tr.Publisher(transports.Producer{Topic: long}); err == nil || !strings.Contains(err.Error(), "longer than 255 bytes") {
		t.Errorf("a publisher to a name that is too long: %v", err)
	}
}

func TestAMismatchIsSeenBeforeTheFirstMessageAndSaidOnce(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", amqp.Table{"x-max-length": int32(5)})
	r := start(t, config(url))
	p := r.publisher("q")
	out := r.subscribe(t.Context(), "q")
	r.sick("topic q", `declaring queue "q"`, "PRECONDITION_FAILED", "retrying")
	r.until("messages aren't accepted", func() bool {
		err := r.tr.Accepts("q") // the broker may just have closed the channel
		return err != nil && strings.Contains(err.Error(), "PRECONDITION_FAILED")
	})
	if err := p.Publish("q", outgoing("one")); err == nil || !strings.Contains(err.Error(), "PRECONDITION_FAILED") {
		t.Errorf("publishing: %v", err)
	}
	none(t, out)
	if n := r.log.count("level="); n != 1 {
		t.Errorf("the log has %d lines about one queue:\n%s", n, r.log)
	}
	if _, err := peer.ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	r.well("topic q")
	if err := r.tr.Accepts("q"); err != nil {
		t.Errorf("accepting: %v", err)
	}
	if err := p.Publish("q", outgoing("two")); err != nil {
		t.Error(err)
	}
	next(t, out).Ack()
	if n := r.log.count("topic works again"); n != 1 || r.log.count("level=") != 2 {
		t.Errorf("the log:\n%s", r.log)
	}
}

func TestAcceptsSaysWhyAMessageWouldWait(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	r := prepare(t, config(cuttable))
	if err := r.tr.Accepts("t"); err == nil || !strings.Contains(err.Error(), "not connected yet") {
		t.Errorf("before the start: %v", err)
	}
	r.begin()
	r.until("messages are accepted", func() bool { return r.tr.Accepts("t") == nil })
	proxy.Down()
	r.until("messages aren't accepted", func() bool { return r.tr.Accepts("t") != nil })
	if err := r.tr.Accepts("t"); !strings.Contains(err.Error(), "no connection to the broker") {
		t.Errorf("without a broker: %v", err)
	}
	proxy.Up()
	r.until("messages are accepted again", func() bool { return r.tr.Accepts("t") == nil })
	if err := r.tr.Accepts("amq.x"); err == nil || !strings.Contains(err.Error(), `begins with "amq."`) {
		t.Errorf("a name that can't be: %v", err)
	}
	r.close()
	if err := r.tr.Accepts("t"); err == nil {
		t.Error("a closed transport accepts")
	}
}

func TestADeletedQueueIsMadeAgainByAPublisher(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url))
	peer := dial(t, url)
	if err := r.publish("t", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.ch.QueueDelete("t", false, false, false); err != nil {
		t.Fatal(err)
	}
	if first := r.publishes("t", "two"); first == nil || !strings.Contains(first.Error(), "NO_ROUTE") {
		t.Errorf("without the queue: %v", first)
	}
}

// A publish to a missing exchange closes the channel, with the messages of all callers on it.
// While a broker deletes an exchange, it may accept a declaration and then not know the exchange.
// A publish fails then, and works when it is retried.
func TestADeletedExchangeComesBackUnderItsPublishers(t *testing.T) {
	t.Parallel()
	const publishers, each = 8, 200
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url, topics(map[string]TopicConfig{"theirs": {Exchange: "theirs"}})))
	peer := dial(t, url)
	var running sync.WaitGroup
	for n := range publishers {
		topic := "ours"
		if n%4 == 0 {
			topic = "theirs"
		}
		p := r.publisher(topic)
		running.Go(func() {
			for range each {
				await.That(t, "publishing to "+topic+" works", func() (any, bool) {
					err := p.Publish(topic, outgoing("x"), outgoing("y"))
					return err, err == nil
				})
			}
		})
	}
	r.until("messages flow", func() bool { return peer.has("theirs") && peer.depth("theirs") > 50 })
	if err := peer.ch.ExchangeDelete("theirs", false, false); err != nil {
		t.Fatal(err)
	}
	running.Wait()
	await.That(t, "all are there", func() (any, bool) {
		ours, theirs := peer.depth("ours"), peer.depth("theirs")
		return fmt.Sprintf("%d of ours, %d of theirs", ours, theirs), ours >= 2*publishers*each*3/4 && theirs >= 2*publishers*each/4
	})
	troubles := r.log.count("topic doesn't work")
	if n := r.log.count("level="); n != 1+2*troubles || r.log.count(`msg="the exchange was deleted, declaring it again" exchange=theirs`) != 1 {
		t.Errorf("the log has %d lines about one exchange:\n%s", n, r.log)
	}
}

func TestADeletedExchangeThatIsOnlyCheckedIsAnError(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	no := false
	peer := dial(t, url)
	declare := func() {
		t.Helper()
		if err := peer.ch.ExchangeDeclare("theirs", "topic", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		if err := peer.ch.QueueBind("q", "#", "theirs", false, nil); err != nil {
			t.Fatal(err)
		}
	}
	peer.queue("q", nil)
	declare()
	r := start(t, config(url, topics(map[string]TopicConfig{"t": {Exchange: "theirs", Declare: &no}})))
	if err := r.publish("t", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	if err := peer.ch.ExchangeDelete("theirs", false, false); err != nil {
		t.Fatal(err)
	}
	err := r.publish("t", outgoing("two"))
	if !errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), `checking exchange "theirs"`) {
		t.Errorf("error %v", err)
	}
	r.sick("topic t", "NOT_FOUND")
	if n := r.log.count("level="); n != 1 {
		t.Errorf("the log has %d lines:\n%s", n, r.log)
	}
	declare()
	r.well("topic t")
	if err := r.publish("t", outgoing("three")); err != nil {
		t.Error(err)
	}
}

// The broker doesn't tell a consumer that its queue receives nothing any more.
func TestWhatWasDeletedComesBackWithoutAMessage(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	r := prepare(t, config(url))
	r.tr.checkInterval = 200 * time.Millisecond
	r.begin()
	out := r.subscribe(t.Context(), "consumed")
	r.publisher("published")
	r.well("topic consumed")
	r.well("topic published")
	arrives := func(how string) {
		t.Helper()
		r.until("a message arrives after "+how, func() bool {
			peer.publish(pentroughExchange, "consumed", how)
			select {
			case msg := <-out:
				msg.Ack()
				return true
			case <-time.After(quiet / 4):
				return false
			}
		})
	}

	if err := peer.ch.QueueUnbind("consumed", "consumed", pentroughExchange, nil); err != nil {
		t.Fatal(err)
	}
	arrives("its binding was deleted")
	if n := r.log.count("level="); n != 0 {
		t.Errorf("the log:\n%s", r.log)
	}

	// A check that began earlier may create it again without a log line. It may also find it
	// missing halfway, and then the topic has an error for a moment.
	lines := func() int {
		return r.log.count("level=") - r.log.count("topic doesn't work") - r.log.count("topic works again")
	}
	missed := func(line string, remove func() error, back func() bool) {
		t.Helper()
		before := lines()
		for r.log.count(line) == 0 {
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			r.until("it is back", back)
		}
		if n := lines() - before; n != 1 {
			t.Errorf("the log has %d lines about it:\n%s", n, r.log)
		}
	}
	missed(`msg="the exchange was deleted, declaring it again" exchange=pentrough`,
		func() error { return peer.ch.ExchangeDelete(pentroughExchange, false, false) },
		func() bool {
			err := peer.ch.ExchangeDeclarePassive(pentroughExchange, "topic", true, false, false, false, nil)
			if err != nil {
				peer.open()
			}
			return err == nil
		})
	arrives("the exchange was deleted")
	missed(`msg="the queue was deleted, declaring it again" queue=published`,
		func() error { _, err := peer.ch.QueueDelete("published", false, false, false); return err },
		func() bool { return peer.has("published") })

	// If something can't be created again, the topic has an error until it can.
	if err := peer.ch.ExchangeDelete(pentroughExchange, false, false); err != nil {
		t.Fatal(err)
	}
	if err := peer.ch.ExchangeDeclare(pentroughExchange, "fanout", true, false, false, false, nil); err == nil {
		r.sick("topic consumed", "inequivalent arg 'type'")
		r.sick("topic published", "inequivalent arg 'type'")
		if err := peer.ch.ExchangeDelete(pentroughExchange, false, false); err != nil {
			t.Fatal(err)
		}
	} else {
		peer.open()
	}
	r.well("topic consumed")
	r.well("topic published")
	arrives("the exchange had another kind")
}

// A topic with queue_type = "classic" gets a classic queue, even if the virtual host's default
// type is quorum. It also accepts a queue that was declared without a type.
func TestAClassicQueueIsClassic(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("old", amqp.Table{})
	r := start(t, config(url, func(c *Config) {
		no, topics := false, map[string]TopicConfig{}
		for name, topic := range map[string]TopicConfig{"old": {}, "new": {}, "fleeting": {Durable: &no, AutoDelete: true}} {
			topic.QueueType, topic.Queue, topic.Exchange = "classic", name, "e."+name
			topics[name] = topic
		}
		c.Topics = topics
	}))
	for _, name := range []string{"old", "new", "fleeting"} {
		r.subscribe(t.Context(), name)
		r.well("topic " + name)
	}
	ch := dial(t, url).ch
	if _, err := ch.QueueDeclare("new", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err == nil || !strings.Contains(err.Error(), "x-queue-type") {
		t.Errorf("it isn't a classic queue: %v", err)
	}
}

// The host sends queue_type = "classic", so that the virtual host's default type isn't used.
func TestAClassicQueueWhereQuorumIsTheDefault(t *testing.T) {
	t.Parallel()
	node := testenv.NewNode(t)
	const vhost = "quorum-by-default"
	node.Ctl(t, "add_vhost", vhost, "--default-queue-type", "quorum")
	node.Ctl(t, "set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
	url := strings.TrimSuffix(node.URL(), testenv.VHostOf(node.URL())) + vhost
	dial(t, url).queue("untold", nil)
	r := start(t, config(url, topics(map[string]TopicConfig{"classic": {QueueType: "classic"}, "quorum": {QueueType: "quorum"}})))
	for _, name := range []string{"classic", "quorum"} {
		r.subscribe(t.Context(), name)
		r.well("topic " + name)
	}
	types := strings.Fields(node.Ctl(t, "list_queues", "-q", "--no-table-headers", "-p", vhost, "name", "type"))
	got := map[string]string{}
	for i := 0; i+1 < len(types); i += 2 {
		got[types[i]] = types[i+1]
	}
	if got["untold"] != "quorum" {
		t.Skipf("this broker has no default type: %v", got)
	}
	if got["classic"] != "classic" || got["quorum"] != "quorum" {
		t.Errorf("the queues are %v", got)
	}
}

// An older broker distinguishes a queue without a type from a classic one.
func TestAQueueWithoutATypeIsClassic(t *testing.T) {
	refused := func(text string) error {
		return fmt.Errorf("declaring queue: %w", plainError(&amqp.Error{Code: amqp.PreconditionFailed, Server: true, Reason: text}))
	}
	const text = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value 'classic' of type 'longstr' but current is "
	for _, c := range []struct {
		queueType string
		err       error
		want      bool
	}{
		{"classic", refused(text + "none"), true},
		{"classic", refused(text + "the value 'quorum' of type 'longstr'"), false},
		{"quorum", refused(text + "none"), false},
		{"", refused(text + "none"), false},
		{"classic", refused(strings.Replace(text, "x-queue-type", "x-max-length", 1) + "none"), false},
		{"classic", nil, false},
	} {
		conf := Config{Topics: map[string]TopicConfig{"q": {QueueType: c.queueType}}}
		route, err := conf.route("q")
		if err != nil {
			t.Fatal(err)
		}
		if got := route.wasDeclaredUntyped(c.err); got != c.want {
			t.Errorf("%q, %v: %v", c.queueType, c.err, got)
		}
	}
}
