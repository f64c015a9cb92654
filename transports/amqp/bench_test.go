package amqp

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/transports"
)

const (
	benchPublishers = 100
	benchWindow     = 1000
)

var benchBody = []byte(`{"id":"0d5c5c3f-5b8f-4a44-a0d7-3ee7a1a1a001","device":"10.0.0.7","state":"sent","code":202,"host":"gateway-1"}`)

const (
	benchMessages = 20000
	benchPairs    = 5
)

// BenchmarkPublish publishes confirmed, persistent messages from 100 goroutines. It compares this
// package, bare amqp091-go (one channel, each goroutine waits for its own deferred confirm) and
// stock watermill-amqp (a pool of 8 channels). They take turns, and it reports the medians of the
// ratios. One operation is five turns of 20,000 messages each.
func BenchmarkPublish(b *testing.B) {
	server := testenv.Broker(b)
	for b.Loop() {
		var toBare, toStock, rates []float64
		for range benchPairs {
			bare := fromMany(b, barePublisher, server.VHost(b))
			ours := fromMany(b, ourPublisher, server.VHost(b))
			stock := fromMany(b, stockPublisher, server.VHost(b))
			b.Logf("pentrough %.0f/s, bare %.0f/s, stock %.0f/s, ratios %.2f and %.2f", ours, bare, stock, ours/bare, ours/stock)
			toBare, toStock, rates = append(toBare, ours/bare), append(toStock, ours/stock), append(rates, ours)
		}
		for _, all := range [][]float64{toBare, toStock, rates} {
			slices.Sort(all)
		}
		b.ReportMetric(toBare[benchPairs/2], "pentrough/bare")
		b.ReportMetric(toStock[benchPairs/2], "pentrough/stock")
		b.ReportMetric(rates[benchPairs/2], "messages/s")
	}
}

// benchQueue is a durable queue that keeps only the newest messages, so its cost doesn't depend on
// the number of messages.
var benchQueue = amqp.Table{"x-max-length": int64(1000)}

func ourPublisher(b *testing.B, url string) (publish func() error, end func()) {
	r := start(b, config(url, topics(map[string]TopicConfig{"t": {Exchange: defaultExchange, Queue: "t", Arguments: map[string]any{"x-max-length": int64(1000)}}})))
	p, err := r.tr.Publisher(transports.Producer{Pipeline: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	return func() error { return p.Publish("t", message.NewMessage(watermill.NewUUID(), benchBody)) }, r.close
}

func barePublisher(b *testing.B, url string) (publish func() error, end func()) {
	peer := dial(b, url)
	peer.queue("t", benchQueue)
	if err := peer.ch.Confirm(false); err != nil {
		b.Fatal(err)
	}
	return func() error {
		c, err := peer.ch.PublishWithDeferredConfirm("", "t", true, false, amqp.Publishing{
			MessageId: watermill.NewUUID(), DeliveryMode: amqp.Persistent, Body: benchBody,
		})
		if err != nil {
			return err
		}
		c.Wait()
		return nil
	}, func() { peer.conn.Close() }
}

func stockPublisher(b *testing.B, url string) (publish func() error, end func()) {
	dial(b, url).queue("t", benchQueue)
	c := wamqp.NewDurableQueueConfig(url)
	c.Publish.ConfirmDelivery = true
	c.Publish.ChannelPoolSize = 8
	p, err := wamqp.NewPublisher(c, watermill.NopLogger{})
	if err != nil {
		b.Fatal(err)
	}
	return func() error { return p.Publish("t", message.NewMessage(watermill.NewUUID(), benchBody)) }, func() { p.Close() }
}

// fromMany publishes from many goroutines and returns the messages a second.
func fromMany(b *testing.B, open func(b *testing.B, url string) (publish func() error, end func()), url string) float64 {
	publish, end := open(b, url)
	defer end()
	if err := publish(); err != nil {
		b.Fatal(err)
	}
	var left atomic.Int64
	left.Store(benchMessages)
	var running sync.WaitGroup
	begun := time.Now()
	for range benchPublishers {
		running.Go(func() {
			for left.Add(-1) >= 0 {
				if err := publish(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	return benchMessages / time.Since(begun).Seconds()
}

// BenchmarkConsume compares receiving and acking in this package with bare amqp091-go, which acks
// each message.
func BenchmarkConsume(b *testing.B) {
	fill := func(b *testing.B, url string) *peer {
		peer := dial(b, url)
		peer.queue("t", nil)
		for range b.N {
			peer.send("t", amqp.Publishing{MessageId: "1", Body: benchBody})
		}
		peer.holds("t", b.N)
		b.ReportAllocs()
		b.ResetTimer()
		return peer
	}
	b.Run("pentrough", func(b *testing.B) {
		url := testenv.Broker(b).VHost(b)
		fill(b, url)
		r := start(b, config(url, topics(map[string]TopicConfig{"t": {Exchange: defaultExchange}})))
		out, _ := r.take(context.Background(), r.subscriber(), "t")
		for range b.N {
			(<-out).Settle(&transports.Outcome{})
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
	b.Run("bare", func(b *testing.B) {
		url := testenv.Broker(b).VHost(b)
		peer := fill(b, url)
		if err := peer.ch.Qos(benchWindow, 0, false); err != nil {
			b.Fatal(err)
		}
		deliveries, err := peer.ch.Consume("t", "", false, false, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		for range b.N {
			d := <-deliveries
			if err := d.Ack(false); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	})
}
