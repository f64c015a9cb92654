package amqp

import (
	"context"
	"errors"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// These tests show why this package doesn't use the subscriber and publisher of watermill-amqp.
// Each test compares what the stock part and this package do with the same queue. If a test fails
// because the stock part has improved, code of this package can be deleted. stock_outage_test.go
// tests what happens after a lost connection.

// consumer is a stock consumer or one of this package.
type consumer struct {
	out   <-chan *message.Message
	close func() error
}

func stockConsumer(t *testing.T, url string, change ...func(*wamqp.Config)) consumer {
	t.Helper()
	c := wamqp.NewDurableQueueConfig(url)
	c.Consume.Qos.PrefetchCount = 10
	for _, f := range change {
		f(&c)
	}
	s, err := wamqp.NewSubscriber(c, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	out, err := s.Subscribe(context.Background(), "q")
	if err != nil {
		t.Fatal(err)
	}
	return consumer{out, s.Close}
}

func ownConsumer(t *testing.T, url string) consumer {
	t.Helper()
	r := start(t, config(url, onQueue, func(c *Config) { c.Prefetch = 10 }))
	s := transporttest.Stock(r.subscriber())
	out, err := s.Subscribe(context.Background(), "q")
	if err != nil {
		t.Fatal(err)
	}
	return consumer{out, s.Close}
}

// queued returns a new virtual host with the queue "q", and a peer.
func queued(t *testing.T) (string, *peer) {
	t.Helper()
	url := testenv.Broker(t).VHost(t)
	p := dial(t, url)
	p.queue("q", nil)
	return url, p
}

func TestStockHandsOutOneMessageAtATime(t *testing.T) {
	url, peer := queued(t)
	peer.put("q", "one", "two", "three")
	stock := stockConsumer(t, url)
	next(t, stock.out)
	none(t, stock.out)
	stock.close()

	own := ownConsumer(t, url)
	for range 3 {
		next(t, own.out)
	}
}

func TestStockStopsAtAHeaderThatIsNoString(t *testing.T) {
	url, peer := queued(t)
	peer.send("q", amqp.Publishing{Headers: amqp.Table{"n": int32(1)}, Body: []byte("numbered")})
	peer.put("q", "good")
	// With a window of one, the nacked message stays in front.
	stock := stockConsumer(t, url, func(c *wamqp.Config) { c.Consume.Qos.PrefetchCount = 1 })
	none(t, stock.out)
	stock.close()

	own := ownConsumer(t, url)
	if msg := next(t, own.out); msg.Metadata["header.n"] != "1" {
		t.Errorf("metadata %v", msg.Metadata)
	}
	if msg := next(t, own.out); string(msg.Payload) != "good" {
		t.Errorf("received %q", msg.Payload)
	}
}

func TestStockForgetsPropertiesAndIdentity(t *testing.T) {
	url, peer := queued(t)
	peer.send("q", amqp.Publishing{MessageId: "m-1", CorrelationId: "c-1", Body: []byte("one")})
	stock := stockConsumer(t, url)
	if msg := next(t, stock.out); msg.UUID != "" || len(msg.Metadata) != 0 {
		t.Errorf("the stock message has UUID %q, metadata %v", msg.UUID, msg.Metadata)
	}
	stock.close()

	own := ownConsumer(t, url)
	msg := next(t, own.out)
	if msg.UUID != "m-1" || msg.Metadata[transports.CorrelationID] != "c-1" || msg.Metadata[transports.Redelivered] != "true" {
		t.Errorf("UUID %q, metadata %v", msg.UUID, msg.Metadata)
	}
}

func TestStockInventsAMessageWhenTheQueueIsDeleted(t *testing.T) {
	url, peer := queued(t)
	stock := stockConsumer(t, url)
	peer.consumed("q", 1)
	if _, err := peer.ch.QueueDelete("q", false, false, false); err != nil {
		t.Fatal(err)
	}
	if msg := next(t, stock.out); msg.UUID != "" || len(msg.Payload) != 0 {
		t.Errorf("received %q", msg.Payload)
	} else {
		msg.Ack()
	}
	stock.close()
	// This package: TestADeletedQueueIsDeclaredAgainAndItsDeliveriesAreVoid.
}

func TestStockGivesRunningMessagesAwayOnClose(t *testing.T) {
	url, peer := queued(t)
	peer.put("q", "one")
	stock := stockConsumer(t, url)
	msg := next(t, stock.out)
	if err := stock.close(); err != nil {
		t.Fatal(err)
	}
	if msg.Context().Err() == nil {
		t.Error("the stock subscriber leaves the running message its context now")
	}
	// The handler still runs, and another consumer already has its message.
	peer.holds("q", 1)
	// This package: TestStoppingKeepsWhatRuns.
}

func TestStockLosesTheOrderAtANack(t *testing.T) {
	url, peer := queued(t)
	peer.put("q", "one", "two", "three")
	stock := stockConsumer(t, url)
	next(t, stock.out).Nack()
	if msg := next(t, stock.out); string(msg.Payload) != "two" {
		t.Errorf("after the nack of one it hands out %q", msg.Payload)
	}
	// This package: TestStoppingKeepsWhatRuns.
}

func TestStockTakesUnroutableMessagesForDelivered(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	c := wamqp.NewDurableQueueConfig(url)
	c.Publish.Mandatory, c.Publish.ConfirmDelivery = true, true
	stock, err := wamqp.NewPublisher(c, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	if err := stock.Publish("nowhere", outgoing("one")); err != nil {
		t.Errorf("the stock publisher notices now: %v", err)
	}

	r := start(t, config(url, topics(map[string]TopicConfig{"nowhere": {PublishRoutingKey: "x"}})))
	if err := r.publish("nowhere", outgoing("one")); !errors.Is(err, transports.ErrUnroutable) {
		t.Errorf("error %v", err)
	}
}

func TestStockMissesADeletedExchange(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	c := wamqp.NewDurablePubSubConfig(url, nil)
	c.Publish.ChannelPoolSize = 2
	stock, err := wamqp.NewPublisher(c, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	for _, payload := range []string{"before", "after"} {
		if err := stock.Publish("t", outgoing(payload)); err != nil {
			t.Errorf("the stock publisher notices %s the exchange is deleted: %v", payload, err)
		}
		if err := peer.ch.ExchangeDelete("t", false, false); err != nil {
			t.Fatal(err)
		}
	}
	// This package: TestADeletedExchangeComesBackUnderItsPublishers,
	// TestADeletedExchangeThatIsOnlyCheckedIsAnError.
}

func TestStockBindsByTheQueuesName(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	c := wamqp.NewDurablePubSubConfig(url, wamqp.GenerateQueueNameConstant("queue"))
	c.Exchange.Type = "topic"
	named := make(chan string, 1)
	c.QueueBind.GenerateRoutingKey = func(name string) string {
		named <- name
		return name
	}
	stock, err := wamqp.NewSubscriber(c, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	if _, err := stock.Subscribe(t.Context(), "topic"); err != nil {
		t.Fatal(err)
	}
	if name := <-named; name != "queue" {
		t.Errorf("the binding's key is made from %q", name)
	}

	r := start(t, config(url, topics(map[string]TopicConfig{"topic": {Queue: "other"}})))
	if err := r.publish("topic", outgoing("one")); err != nil {
		t.Error(err)
	}
	if got := dial(t, url).get("other"); got.RoutingKey != "topic" {
		t.Errorf("received by the key %q", got.RoutingKey)
	}
}

// consumers returns the number of consumers of a queue.
func (p *peer) consumers(queue string) int {
	p.Helper()
	q, err := p.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		p.Fatal(err)
	}
	return q.Consumers
}
