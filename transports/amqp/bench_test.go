package amqp

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

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

// BenchmarkPublish compares confirmed, persistent messages from 100 goroutines: ours, bare amqp091-go with one channel and
// deferred confirms, and stock watermill-amqp with a pool of 8 channels.
func BenchmarkPublish(b *testing.B) {
	b.Run("pentrough", func(b *testing.B) {
		url := testenv.Broker(b).VHost(b)
		r := start(b, config(url, topics(map[string]TopicConfig{"t": {Arguments: map[string]any{"x-max-length": int64(1000)}}})))
		p, err := r.tr.Publisher(transports.Producer{Pipeline: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		fromMany(b, func() error { return p.Publish("t", message.NewMessage(watermill.NewUUID(), benchBody)) })
	})
	b.Run("bare", func(b *testing.B) {
		peer := dial(b, testenv.Broker(b).VHost(b))
		peer.queue("t", amqp.Table{"x-max-length": int64(1000)})
		if err := peer.ch.Confirm(false); err != nil {
			b.Fatal(err)
		}
		slots := make(chan struct{}, benchWindow)
		fromMany(b, func() error {
			slots <- struct{}{}
			defer func() { <-slots }()
			c, err := peer.ch.PublishWithDeferredConfirm("", "t", true, false, amqp.Publishing{
				MessageId: watermill.NewUUID(), DeliveryMode: amqp.Persistent, Body: benchBody,
			})
			if err != nil {
				return err
			}
			c.Wait()
			return nil
		})
	})
	b.Run("stock", func(b *testing.B) {
		url := testenv.Broker(b).VHost(b)
		dial(b, url).queue("t", amqp.Table{"x-max-length": int64(1000)})
		c := wamqp.NewDurableQueueConfig(url)
		c.Publish.ConfirmDelivery = true
		c.Publish.ChannelPoolSize = 8
		p, err := wamqp.NewPublisher(c, watermill.NopLogger{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { p.Close() })
		fromMany(b, func() error { return p.Publish("t", message.NewMessage(watermill.NewUUID(), benchBody)) })
	})
}

func fromMany(b *testing.B, publish func() error) {
	if err := publish(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var running sync.WaitGroup
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkConsume compares receiving and acking: ours, and bare amqp091-go with an ack a message.
func BenchmarkConsume(b *testing.B) {
	fill := func(b *testing.B, url string) *peer {
		peer := dial(b, url)
		peer.queue("t", nil)
		for range b.N {
			peer.send("t", amqp.Publishing{MessageId: "1", Body: benchBody})
		}
		until(b, "all are there", func() bool { return peer.depth("t") == b.N })
		b.ReportAllocs()
		b.ResetTimer()
		return peer
	}
	b.Run("pentrough", func(b *testing.B) {
		url := testenv.Broker(b).VHost(b)
		fill(b, url)
		r := start(b, config(url, topics(map[string]TopicConfig{"t": {Exchange: defaultExchange}})))
		out := r.subscribe(context.Background(), "t")
		for range b.N {
			(<-out).Ack()
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
