package amqp

import (
	"context"
	"maps"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// The suite checks for leaked goroutines, so no other test may run at the same time.
func TestConformance(t *testing.T) {
	for _, queueType := range []string{"classic", "quorum"} {
		t.Run(queueType, func(t *testing.T) {
			url := testenv.Broker(t).VHost(t)
			peer := dial(t, url)
			var n atomic.Int64
			var queue string
			transporttest.Run(t, transporttest.Harness{
				Topic:   "topic",
				Returns: true,
				Config: func(*testing.T) transports.Config {
					queue = "queue-" + string('a'+rune(n.Add(1)))
					return config(url, topics(map[string]TopicConfig{
						"topic": {Exchange: queue, Queue: queue, QueueType: queueType, Prefetch: 10},
					}))
				},
				Put: func(t *testing.T, _ transports.Transport, payloads ...string) {
					// The suite publishes as soon as Subscribe has returned. The queue is declared
					// a moment later.
					c := config(url, topics(map[string]TopicConfig{"topic": {Exchange: queue, Queue: queue, QueueType: queueType}}))
					r, err := c.route("topic")
					if err != nil {
						t.Fatal(err)
					}
					if err := r.declareTopology(peer.conn, r.queue); err != nil {
						t.Fatal(err)
					}
					for _, payload := range payloads {
						peer.publish(queue, "topic", payload)
					}
				},
			})
		})
	}
}

// TestUniversalPubSub runs Watermill's suite for Pub/Subs. The suite waits 15 to 45 s for its
// messages, and a busy machine needs longer for 10,000. So it sends a hundred, and the window is
// smaller by the same factor.
func TestUniversalPubSub(t *testing.T) {
	url := testenv.Broker(t).VHost(t)
	open := func(t *testing.T) (message.Publisher, message.Subscriber) {
		r := start(t, config(url, func(c *Config) { c.Prefetch = 10 }))
		return r.publisher(""), transporttest.Stock(patient{r.subscriber()})
	}
	features := tests.Features{Persistent: true, ForceShort: true}
	tests.TestPubSub(t, features, open, nil)
	features.GuaranteedOrder, features.GuaranteedOrderWithSingleSubscriber = true, true
	tests.TestPublishSubscribeInOrder(t, tests.TestContext{TestID: tests.NewTestID(), Features: features}, open)
}

// patient is a subscriber with what the suite expects and the router normally does: it redelivers
// a nacked message, and ends the context of an acked one.
type patient struct{ transports.Subscriber }

func (p patient) Subscribe(ctx context.Context, topic string, take func(*transports.Delivery)) (<-chan struct{}, error) {
	return p.Subscriber.Subscribe(ctx, topic, func(d *transports.Delivery) {
		own := *d
		var end context.CancelFunc
		own.Context, end = context.WithCancel(d.Context)
		// A header arrives as header.NAME. The suite looks for the name that it sent.
		own.Metadata = maps.Clone(d.Metadata)
		own.Metadata["test"] = d.Metadata[transports.HeaderPrefix+"test"]
		own.Settle = func(o *transports.Outcome) {
			if o == nil && ctx.Err() == nil {
				take(&own)
				return
			}
			end()
			d.Settle(o)
		}
		take(&own)
	})
}
