package amqp

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// onQueue sets the topic "q" to the durable queue "q", without an exchange.
func onQueue(c *Config) { c.Topics = map[string]TopicConfig{"q": {Exchange: defaultExchange}} }

func TestADeletedQueueIsDeclaredAgainAndItsDeliveriesAreVoid(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.put("q", "one", "two")
	r := start(t, config(url, onQueue))
	out := r.subscribe(t.Context(), "q")
	one, two := next(t, out), next(t, out)
	if _, err := peer.ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	isVoid(t, one.Context())
	isVoid(t, two.Context())
	one.Ack()
	r.until("the queue is back", func() bool { return peer.has("q") })
	peer.consumed("q", 1)
	none(t, out)
	peer.put("q", "three")
	msg := next(t, out)
	if string(msg.Payload) != "three" {
		t.Fatalf("received %q", msg.Payload)
	}
	msg.Ack()
	r.well("topic q")
	r.logs(1, "the broker cancelled the consumer", "topic works again")
}

func TestAQueueWithOtherArgumentsIsNotConsumedFrom(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", amqp.Table{"x-max-length": int32(5)})
	peer.put("q", "wrong")
	r := start(t, config(url, onQueue))
	out := r.subscribe(t.Context(), "q")
	r.sick("topic q", `declaring queue "q"`, "PRECONDITION_FAILED", "x-max-length", "retrying")
	none(t, out)
	if n := r.log.count("PRECONDITION_FAILED"); n != 1 {
		t.Errorf("the log says so %d times:\n%s", n, r.log)
	}
	if _, err := peer.ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	r.well("topic q")
	peer.put("q", "right")
	if msg := next(t, out); string(msg.Payload) != "right" {
		t.Fatalf("received %q", msg.Payload)
	}
}

func TestWithoutDeclareNothingIsMade(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	no := false
	r := start(t, config(url, topics(map[string]TopicConfig{"q": {Exchange: "theirs", Kind: "fanout", Declare: &no}})))
	out := r.subscribe(t.Context(), "q")
	r.sick("topic q", `checking exchange "theirs"`, "NOT_FOUND")
	if err := peer.ch.ExchangeDeclare("theirs", "fanout", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	r.sick("topic q", `checking queue "q"`, "NOT_FOUND")
	peer.queue("q", amqp.Table{"x-max-length": int32(5)})
	r.well("topic q")
	peer.put("q", "one")
	next(t, out).Ack()
	if err := r.publish("q", outgoing("nowhere")); err == nil {
		t.Error("the queue was bound")
	}
}

func TestACutConnectionVoidsWhatIsOutAndResumes(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.put("q", "one", "two", "three")
	r := start(t, config(cuttable, onQueue))
	out := r.subscribe(t.Context(), "q")
	old := []*message.Message{next(t, out), next(t, out), next(t, out)}
	old[1].Ack()
	// When the broker answers a later request, it has handled the ack.
	r.counts("acks that are written", 1, r.tr.metrics.acked.WithLabelValues("q"))
	r.roundTrip()
	proxy.Cut()
	isVoid(t, old[0].Context())
	isVoid(t, old[2].Context())
	// The tags of the lost channel belong to other messages on the new one.
	old[0].Ack()
	old[2].Ack()
	for _, want := range []string{"one", "three"} {
		msg := next(t, out)
		if string(msg.Payload) != want || msg.Metadata[transports.Redelivered] != "true" {
			t.Fatalf("received %q, redelivered %q; want %q again", msg.Payload, msg.Metadata[transports.Redelivered], want)
		}
	}
	none(t, out)
	if n := testutil.ToFloat64(r.tr.metrics.redelivered.WithLabelValues("q")); n != 2 {
		t.Errorf("%v redeliveries were counted", n)
	}
	r.logs(1, "the connection to the broker doesn't work", "the connection to the broker works again")
	if n := r.log.count("level="); n != 2 {
		t.Errorf("the log has %d lines", n)
	}
}

// roundTrip returns when the broker has handled all frames that were sent on the consumer
// connection.
func (r *rig) roundTrip() {
	r.Helper()
	s, err := r.tr.consumer.awaitSession(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	ch, err := s.conn.Channel()
	if err != nil {
		r.Fatal(err)
	}
	ch.Close()
}

func TestABrokerThatIsAbsentAtStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	proxy.Down()
	r := start(t, config(cuttable, onQueue))
	out := r.subscribe(t.Context(), "q")
	published := make(chan error, 1)
	go func() { published <- r.publish("q", outgoing("one")) }()
	r.sick("consumer connection", "retrying")
	r.sick("publisher connection", "retrying")
	none(t, out)
	proxy.Up()
	if msg := next(t, out); string(msg.Payload) != "one" {
		t.Fatalf("received %q", msg.Payload)
	}
	if err := <-published; err != nil {
		t.Error(err)
	}
	r.well("consumer connection")
	r.well("publisher connection")
	r.well("topic q")
	if n := r.log.count("level="); n != 2 {
		t.Errorf("the log has %d lines, want one for the outage and one for its end:\n%s", n, r.log)
	}
}

func TestCloseIsQuickWhateverTheBrokerDoes(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	for name, hurt := range map[string]func(*testenv.Proxy){
		"down":   (*testenv.Proxy).Down,
		"silent": (*testenv.Proxy).Silence,
	} {
		t.Run(name, func(t *testing.T) {
			proxy, cuttable := testenv.Through(t, url)
			peer.put("q", "one")
			// Only the close ends a wait for the broker.
			r := start(t, config(cuttable, onQueue, func(c *Config) { c.Heartbeat, c.ConnectTimeout = time.Hour, time.Hour }))
			r.tr.closeTimeout = time.Second
			s := transporttest.Stock(r.subscriber())
			out, err := s.Subscribe(t.Context(), "q")
			if err != nil {
				t.Fatal(err)
			}
			msg := next(t, out)
			hurt(proxy)
			_ = s.Close() // it may say that the broker didn't answer
			isVoid(t, msg.Context())
			r.closeSilent()
			closed(t, out)
		})
	}
}

// When a subscriber is closed, its output is closed and its messages become void at once. The
// frames for the broker are sent in the background.
func TestTheOutputOfAClosedSubscriberDoesNotWaitForTheBroker(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	for topic, when := range map[string]struct{ beginning, stopped, settled bool }{
		"beginning":           {beginning: true},
		"consuming":           {},
		"stopped":             {stopped: true},
		"stopped-and-settled": {stopped: true, settled: true},
	} {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			proxy, cuttable := testenv.Through(t, url)
			r := start(t, config(cuttable))
			r.tr.closeTimeout = time.Second
			if err := r.publish(topic, outgoing("one")); err != nil {
				t.Fatal(err)
			}
			r.well("consumer connection")
			s := transporttest.Stock(r.subscriber())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if when.beginning {
				proxy.Silence()
			}
			out, err := s.Subscribe(ctx, topic)
			if err != nil {
				t.Fatal(err)
			}
			var msg *message.Message
			if !when.beginning {
				msg = next(t, out)
				proxy.Silence()
			}
			if when.stopped {
				cancel()
			}
			if when.settled {
				msg.Ack()
			}
			none(t, out)
			result := make(chan error, 1)
			go func() { result <- s.Close() }()
			select {
			case late, ok := <-out:
				if ok {
					t.Errorf("received %q", late.Payload)
				}
			case err := <-result:
				t.Fatalf("Close returned before the output was closed: %v", err)
			}
			if msg != nil && !when.settled {
				isVoid(t, msg.Context())
			}
			err = <-result
			r.closeSilent()
			if err != nil && !strings.Contains(err.Error(), "the broker didn't answer") {
				t.Error(err)
			}
		})
	}
}

func TestStoppingKeepsWhatRuns(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	r := start(t, config(url, onQueue, func(c *Config) { c.Prefetch = 10 }))
	ctx, cancel := context.WithCancel(t.Context())
	out := r.subscribe(ctx, "q")
	for i := range 20 {
		peer.put("q", fmt.Sprint(i))
	}
	var held []*message.Message
	for range 10 {
		held = append(held, next(t, out))
	}
	cancel()
	none(t, out)
	for i, msg := range held {
		if err := msg.Context().Err(); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		if i%2 == 0 {
			msg.Ack()
		} else {
			msg.Nack()
		}
	}
	closed(t, out)
	// The acked messages are gone, the others are in order, and later messages weren't touched.
	again := r.subscribe(t.Context(), "q")
	for _, want := range []int{1, 3, 5, 7, 9, 10, 11, 12, 13, 14} {
		if msg := next(t, again); string(msg.Payload) != fmt.Sprint(want) {
			t.Fatalf("received %q, want %d", msg.Payload, want)
		}
	}
}

// When a consumer is cancelled, a quorum queue requeues deliveries that are on their way before
// older unacked ones.
func TestStoppingKeepsTheOrderOfAQuorumQueue(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", amqp.Table{"x-queue-type": "quorum"})
	if err := peer.ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	r := start(t, config(url, onQueue, func(c *Config) {
		topic := c.Topics["q"]
		topic.QueueType = "quorum"
		c.Topics["q"], c.Prefetch = topic, 300
	}))
	enough, stop := context.WithCancel(t.Context())
	var publishing sync.WaitGroup
	publishing.Go(func() {
		const unconfirmed = 50
		for i := 1; enough.Err() == nil; i++ {
			confirm, err := peer.ch.PublishWithDeferredConfirmWithContext(t.Context(), "", "q", false, false, amqp.Publishing{Body: fmt.Append(nil, i)})
			if err == nil && i%unconfirmed == 0 {
				_, err = confirm.WaitContext(t.Context())
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer publishing.Wait()
	defer stop()
	for round := range 5 {
		ctx, cancel := context.WithCancel(t.Context())
		out := r.subscribe(ctx, "q")
		var kept []*message.Message
		last := 0
		for i := range 2000 {
			msg := next(t, out)
			n, err := strconv.Atoi(string(msg.Payload))
			if err != nil || n <= last {
				t.Fatalf("round %d: received %s after %d", round, msg.Payload, last)
			}
			last = n
			if i%100 == 99 {
				kept = append(kept, msg)
			} else {
				msg.Ack()
			}
		}
		cancel()
		for _, msg := range kept {
			msg.Nack()
		}
		for msg := range out {
			msg.Nack() // it was on its way
		}
	}
}

// The stock subscriber takes more messages after its context is cancelled, if the connection is
// lost at that time.
func TestAStoppedSubscriptionStaysStopped(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.put("q", "one")
	r := start(t, config(cuttable, onQueue))
	ctx, cancel := context.WithCancel(t.Context())
	out := r.subscribe(ctx, "q")
	msg := next(t, out)
	cancel()
	proxy.Cut()
	isVoid(t, msg.Context())
	closed(t, out)
	r.well("consumer connection")
	peer.put("q", "two")
	peer.holds("q", 2)
	if n := peer.consumers("q"); n != 0 {
		t.Errorf("%d consumers", n)
	}
}

func TestAcksArriveInAnyOrderUnderLoad(t *testing.T) {
	t.Parallel()
	const n = 5000
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	for i := range n {
		peer.put("q", fmt.Sprint(i))
	}
	r := start(t, config(url, onQueue, func(c *Config) { c.Prefetch = 100 }))
	out, _ := r.take(t.Context(), r.subscriber(), "q")
	var open []*transports.Delivery
	for i := range n {
		d := next(t, out)
		if string(d.Payload) != fmt.Sprint(i) {
			t.Fatalf("received %q, want %d", d.Payload, i)
		}
		open = append(open, d)
		// The oldest of 50 stay unsettled while the newest are acked. Then the oldest are acked,
		// beginning with the newest of them.
		if len(open) == 50 || i == n-1 {
			for j := len(open) - 1; j >= 0; j-- {
				open[j].Settle(&transports.Outcome{})
			}
			open = open[:0]
		}
	}
	r.close()
	if left := peer.depth("q"); left != 0 {
		t.Fatalf("%d messages came back", left)
	}
}

func TestQuorumQueuesAndTheirDeliveryLimit(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	r := start(t, config(url, topics(map[string]TopicConfig{"q": {QueueType: quorum, DeliveryLimit: 2}})))
	if err := r.publish("q", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		out := r.subscribe(ctx, "q")
		msg := next(t, out)
		// The second delivery has the integer header that stops the stock subscriber.
		if want := []string{"", "1", "2"}[i]; msg.Metadata["header.x-delivery-count"] != want {
			t.Errorf("delivery %d has x-delivery-count %q", i+1, msg.Metadata["header.x-delivery-count"])
		}
		msg.Nack()
		cancel()
		closed(t, out)
	}
	peer.holds("q", 0)
}

func TestASilentBrokerIsNoticedByItsHeartbeat(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.put("q", "one")
	r := start(t, config(cuttable, onQueue, func(c *Config) { c.Heartbeat = time.Second }))
	out := r.subscribe(t.Context(), "q")
	msg := next(t, out)
	proxy.Silence()
	isVoid(t, msg.Context())
	r.sick("consumer connection", "timeout")
	proxy.Cut()
	proxy.Up()
	if again := next(t, out); again.Metadata[transports.Redelivered] != "true" {
		t.Errorf("metadata %v", again.Metadata)
	}
}

func TestASubscriberReportsWhetherItHasAConsumer(t *testing.T) {
	t.Parallel()
	proxy, cuttable := testenv.Through(t, testenv.Broker(t).VHost(t))
	proxy.Down()
	r := start(t, config(cuttable))
	var present atomic.Bool
	present.Store(true)
	sub, err := r.tr.Subscriber(transports.Consumer{Pipeline: "p", Present: present.Store})
	if err != nil {
		t.Fatal(err)
	}
	r.take(t.Context(), sub, "t")
	if present.Load() {
		t.Error("present before the broker was ever there")
	}
	proxy.Up()
	r.until("there is a consumer", present.Load)
	proxy.Down()
	proxy.Cut()
	r.until("there is none", func() bool { return !present.Load() })
	proxy.Up()
	r.until("there is one again", present.Load)
}

// A host that is connected isn't ready before the broker has its consumer. Otherwise a publisher
// that waits for /readyz could publish before the queue exists.
func TestATopicIsUnhealthyUntilItIsConsumed(t *testing.T) {
	t.Parallel()
	proxy, url := testenv.Through(t, testenv.Broker(t).VHost(t))
	r := start(t, config(url, onQueue))
	r.well("consumer connection")
	proxy.Stall()
	out := r.subscribe(t.Context(), "q")
	r.sick("topic q", "about to consume")
	proxy.Up()
	r.well("topic q")
	dial(t, url).put("q", "one")
	next(t, out)
}
