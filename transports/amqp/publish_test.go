package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

func TestUnroutableIsTheTopicsChoice(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url, topics(map[string]TopicConfig{
		"retried": {PublishRoutingKey: "nobody"},
		"dropped": {PublishRoutingKey: "nobody", Unroutable: drop},
	})))
	// Two messages have the same id, so the broker's return doesn't identify one of them.
	twin := outgoing("twin")
	err := r.publish("retried", outgoing("one"), twin, twin.Copy())
	if !errors.Is(err, transports.ErrUnroutable) || !strings.Contains(err.Error(), `exchange "pentrough", routing key "nobody": NO_ROUTE`) {
		t.Errorf("error %v", err)
	}
	if err := r.publish("dropped", outgoing("two"), outgoing("three")); err != nil {
		t.Errorf("error %v", err)
	}
	for action, want := range map[string]float64{"retry": 3, "drop": 2} {
		topic := map[string]string{"retry": "retried", "drop": "dropped"}[action]
		if n := testutil.ToFloat64(r.tr.metrics.unroutable.WithLabelValues(topic, action)); n != want {
			t.Errorf("%s: %v were counted, want %v", action, n, want)
		}
		if n := testutil.ToFloat64(r.tr.metrics.confirmed.WithLabelValues(topic)); n != 0 {
			t.Errorf("%s: %v were counted as confirmed", action, n)
		}
	}
}

func TestPublishingMakesTheQueueBeforeAnybodyConsumes(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url, topics(map[string]TopicConfig{
		"several": {Exchange: "e", RoutingKey: []string{"a.*", "b"}, PublishRoutingKey: "a.x"},
		"headers": {Exchange: "h", Kind: "headers", BindingArguments: map[string]any{"x-match": "all", "region": "north"}},
	})))
	msg := outgoing("headed")
	msg.Metadata["region"] = "north"
	for topic, msg := range map[string]*message.Message{"plain": outgoing("plain"), "several": outgoing("several"), "headers": msg} {
		if err := r.publish(topic, msg); err != nil {
			t.Errorf("%s: %v", topic, err)
		}
	}
	peer := dial(t, url)
	peer.publish("e", "b", "by the second key")
	for queue, want := range map[string]string{"plain": "plain", "several": "several", "headers": "headed"} {
		if got := peer.get(queue); string(got.Body) != want || got.DeliveryMode != amqp.Persistent {
			t.Errorf("queue %s has %q, mode %d", queue, got.Body, got.DeliveryMode)
		}
	}
	if got := peer.get("several"); string(got.Body) != "by the second key" {
		t.Errorf("received %q", got.Body)
	}
}

func TestAMissingExchangeHarmsNoOtherTopic(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	no := false
	r := start(t, config(url, topics(map[string]TopicConfig{"missing": {Exchange: "theirs", Declare: &no}})))
	var running sync.WaitGroup
	running.Go(func() {
		for range 20 {
			if err := r.publish("missing", outgoing("x")); err == nil || !strings.Contains(err.Error(), `checking exchange "theirs"`) {
				t.Errorf("error %v", err)
			}
		}
	})
	for i := range 200 {
		if err := r.publish("t", outgoing(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	r.sick("topic missing", "NOT_FOUND")
	r.well("topic t")
}

func TestANegativeConfirmIsAnError(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url, topics(map[string]TopicConfig{"t": {Arguments: map[string]any{"x-max-length": int64(1), "x-overflow": "reject-publish"}}})))
	if err := r.publish("t", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	err := r.publish("t", outgoing("two"))
	if err == nil || errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("error %v", err)
	}
}

func TestASilentBrokerLeavesAMessageUndecidedInTime(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	r := start(t, config(cuttable, func(c *Config) { c.PublishTimeout, c.ConfirmWindow = time.Second, 2 }))
	r.publishes("t", "one") // with patience for the connection
	proxy.Silence()
	ctx, cancel := context.WithCancelCause(t.Context())
	msg := outgoing("two")
	msg.SetContext(ctx)
	sent := r.tr.metrics.published.WithLabelValues("t")
	before := testutil.ToFloat64(sent)
	result := make(chan error, 1)
	go func() { result <- r.publish("t", msg) }()
	r.counts("messages that are sent", before+1, sent)
	cancel(errors.New("the caller is gone"))
	if err := await.Receive(t, "the end of a publish", result); !errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), "the caller is gone") {
		t.Errorf("error %v", err)
	}
	if err := r.publish("t", outgoing("three")); !errors.Is(err, transports.ErrUndecided) || !errors.Is(err, errPublishTimeout) {
		t.Errorf("error %v", err)
	}
	// The confirm window is full of unconfirmed messages, so this message isn't sent.
	if err := r.publish("t", outgoing("four")); err == nil || errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), "2 messages wait for their confirms") {
		t.Errorf("error %v", err)
	}
	// After a cut all messages of the confirm window have an outcome, and the next connection is
	// used.
	proxy.Up()
	proxy.Cut()
	r.publishes("t", "five")
}

func TestACutConnectionLeavesMessagesUndecided(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	r := start(t, config(cuttable))
	if err := r.publish("t", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	proxy.Silence()
	result := make(chan error, 1)
	go func() { result <- r.publish("t", outgoing("two"), outgoing("three")) }()
	r.counts("messages that are on their way", 3, r.tr.metrics.published.WithLabelValues("t"))
	proxy.Cut()
	if err := <-result; !errors.Is(err, transports.ErrUndecided) {
		t.Fatalf("error %v", err)
	}
}

func TestPublishWaitsForTheConnection(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	proxy.Down()
	r := start(t, config(cuttable, func(c *Config) { c.PublishTimeout = time.Minute }))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	msg := outgoing("one")
	msg.SetContext(ctx)
	err := r.publish("t", msg)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), "not sent") {
		t.Errorf("error %v", err)
	}
	result := make(chan error, 1)
	go func() { result <- r.publish("t", outgoing("two")) }()
	proxy.Up()
	if err := <-result; err != nil {
		t.Error(err)
	}
	// Close ends the wait of callers.
	proxy.Down()
	r.sick("publisher connection")
	go func() { result <- r.publish("t", outgoing("three")) }()
	r.close()
	if err := <-result; !errors.Is(err, transports.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestNothingConfirmedIsLostThroughCuts(t *testing.T) {
	t.Parallel()
	const publishers, each, cuts = 20, 100, 8
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	r := start(t, config(cuttable))
	var running sync.WaitGroup
	for n := range publishers {
		running.Go(func() {
			for i := range each {
				msg := outgoing(fmt.Sprint(n, "-", i))
				for r.publish("t", msg) != nil {
					if t.Context().Err() != nil {
						return
					}
				}
			}
		})
	}
	for cut := range cuts {
		r.until("more are confirmed", func() bool {
			return testutil.ToFloat64(r.tr.metrics.confirmed.WithLabelValues("t")) > float64(cut*publishers*each/(2*cuts))
		})
		proxy.Cut()
	}
	running.Wait()
	out := r.subscribe(t.Context(), "t")
	seen := map[string]bool{}
	for len(seen) < publishers*each {
		msg := next(t, out)
		seen[string(msg.Payload)] = true
		msg.Ack()
	}
}

func TestResultsAreCopiedToReplyTo(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.queue("answers", nil)
	r := start(t, config(url, onQueue, answersTo))
	out, _ := r.take(t.Context(), r.subscriber(), "q")
	ask := func(id string) *transports.Delivery {
		peer.send("q", amqp.Publishing{Body: []byte(id), CorrelationId: id, ReplyTo: "answers"})
		return next(t, out)
	}
	result := outgoing("result")
	for id, produced := range map[string][]*message.Message{
		"handled":   {result, outgoing("second")},
		"silent":    nil,
		"forwarded": {ask("forwarded").Message()},
	} {
		d := ask(id)
		d.Settle(&transports.Outcome{Messages: produced})
		d.Settle(&transports.Outcome{Messages: []*message.Message{outgoing("too late")}})
	}
	back := ask("handed back")
	back.Settle(nil)
	back.Settle(&transports.Outcome{Messages: []*message.Message{outgoing("too late")}})
	peer.put("q", "without an address")
	next(t, out).Settle(&transports.Outcome{Messages: []*message.Message{outgoing("for nobody")}})
	got := peer.get("answers")
	if string(got.Body) != "result" || got.CorrelationId != "handled" || got.MessageId != result.UUID {
		t.Errorf("received %q for %q", got.Body, got.CorrelationId)
	}
	r.counts("replies that are sent", 1, r.tr.metrics.replies.WithLabelValues("sent"))
	if n := peer.depth("answers"); n != 0 {
		t.Errorf("%d further answers", n)
	}
}

// The result of a held command comes long after its delivery and connection have ended. Its copy
// waits for the next connection.
func TestTheEndOfWhatWasHeldIsCopiedToReplyTo(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.queue("answers", nil)
	r := start(t, config(cuttable, onQueue, answersTo))
	out, _ := r.take(t.Context(), r.subscriber(), "q")
	peer.send("q", amqp.Publishing{Body: []byte("command"), CorrelationId: "c-1", ReplyTo: "answers"})
	d := next(t, out)
	d.Settle(&transports.Outcome{Messages: []*message.Message{outgoing("held")}})
	if got := peer.get("answers"); string(got.Body) != "held" {
		t.Errorf("received %q", got.Body)
	}
	both := []string{"consumer connection", "publisher connection"}
	proxy.Down()
	for _, part := range both {
		r.sick(part)
	}
	r.tr.Answer(message.Metadata{}, &transports.Outcome{Messages: []*message.Message{outgoing("for nobody")}})
	r.tr.Answer(d.Metadata, &transports.Outcome{Messages: []*message.Message{outgoing("sent")}})
	proxy.Up()
	if got := peer.get("answers"); string(got.Body) != "sent" || got.CorrelationId != "c-1" {
		t.Errorf("received %q for %q", got.Body, got.CorrelationId)
	}
}

func TestAnAnswerComesBackToTheHostThatAsked(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	r := start(t, config(cuttable))
	replyTo, id, answer, cancel, err := r.tr.Expect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cancel()
	peer.send(replyTo, amqp.Publishing{CorrelationId: "somebody else", Body: []byte("no")})
	peer.send(replyTo, amqp.Publishing{CorrelationId: id, Body: []byte("yes")})
	if msg := next(t, answer); string(msg.Payload) != "yes" {
		t.Errorf("received %q", msg.Payload)
	}
	_, _, lost, cancelLost, err := r.tr.Expect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cancelLost()
	proxy.Cut()
	closed(t, lost)
	replyTo, id, answer, cancelAgain, err := r.tr.Expect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer cancelAgain()
	peer.send(replyTo, amqp.Publishing{CorrelationId: id, Body: []byte("again")})
	if msg := next(t, answer); string(msg.Payload) != "again" {
		t.Errorf("received %q", msg.Payload)
	}
}

func TestATapConsumesNobodysMessages(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	r := start(t, config(cuttable, topics(map[string]TopicConfig{"t": {RoutingKey: []string{"a", "b.#"}, PublishRoutingKey: "b.c"}, "direct": {Exchange: defaultExchange}})))
	ctx, cancel := context.WithCancel(t.Context())
	tapped, err := r.tr.Tap(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.publish("t", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	next(t, tapped)
	if n := dial(t, url).depth("t"); n != 1 {
		t.Errorf("the queue has %d messages", n)
	}
	proxy.Cut()
	r.until("the tap goes on", func() bool {
		_ = r.publish("t", outgoing("two"))
		select {
		case <-tapped:
			return true
		default:
			return false
		}
	})
	cancel()
	r.until("the tap ends", func() bool {
		select {
		case _, ok := <-tapped:
			return !ok
		default:
			return false
		}
	})
	if _, err := r.tr.Tap(t.Context(), "direct"); err == nil {
		t.Error("the default exchange was tapped")
	}
}

func TestBatchesLargerThanTheWindow(t *testing.T) {
	t.Parallel()
	const publishers, each = 4, 50
	url := testenv.Broker(t).VHost(t)
	r := start(t, config(url, func(c *Config) { c.ConfirmWindow = 5 }))
	var running sync.WaitGroup
	for range publishers {
		running.Go(func() {
			var msgs []*message.Message
			for i := range each {
				msgs = append(msgs, outgoing(fmt.Sprint(i)))
			}
			if err := r.publish("t", msgs...); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if n := dial(t, url).depth("t"); n != publishers*each {
		t.Errorf("%d messages arrived", n)
	}
}
