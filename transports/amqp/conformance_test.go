package amqp

import (
	"sync/atomic"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// The suite looks for goroutines that are left, so nothing else may run beside it.
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
					// The suite puts as soon as Subscribe has returned; the queue is declared a moment later.
					c := config(url, topics(map[string]TopicConfig{"topic": {Exchange: queue, Queue: queue, QueueType: queueType}}))
					r, err := c.route("topic")
					if err != nil {
						t.Fatal(err)
					}
					if err := r.build(peer.conn, r.queue); err != nil {
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
