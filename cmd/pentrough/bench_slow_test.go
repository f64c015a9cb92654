package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	stockamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/router"
)

// The load of BenchmarkSlowHandler: a handler that takes 5 ms and produces nothing, over 500 keys.
const (
	slowHandler  = 5 * time.Millisecond
	slowKeys     = 500
	slowMessages = 30000
	slowStock    = 400 // the stock subscriber takes one at a time
)

// BenchmarkSlowHandler runs the same handler behind the host's lanes and behind a Watermill Router
// with the stock subscriber, and reports the median ratio of their rates.
func BenchmarkSlowHandler(b *testing.B) {
	server := testenv.Broker(b)
	for b.Loop() {
		var ratios, hosts []float64
		for range 3 {
			stock := slowRun(b, server.VHost(b), slowStock, slowStockRouter)
			host := slowRun(b, server.VHost(b), slowMessages, slowHost)
			b.Logf("host %.0f/s, stock %.0f/s, ratio %.1f", host, stock, host/stock)
			ratios, hosts = append(ratios, host/stock), append(hosts, host)
		}
		slices.Sort(ratios)
		slices.Sort(hosts)
		b.ReportMetric(ratios[1], "host/stock")
		b.ReportMetric(hosts[1], "messages/s")
	}
}

// slowWork counts what was handled.
type slowWork struct {
	count atomic.Int64
	first sync.Once
	begun chan struct{}
	done  chan struct{}
	want  int64
}

func (w *slowWork) handle(*message.Message) error {
	w.first.Do(func() { close(w.begun) })
	time.Sleep(slowHandler)
	if w.count.Add(1) == w.want {
		close(w.done)
	}
	return nil
}

func slowRun(b *testing.B, url string, n int, start func(b *testing.B, url string, w *slowWork) (stop func())) float64 {
	b.Helper()
	conn, err := amqp.Dial(url)
	must(b, err)
	defer conn.Close()
	ch, err := conn.Channel()
	must(b, err)
	_, err = ch.QueueDeclare("slow", true, false, false, false, nil)
	must(b, err)
	must(b, ch.Confirm(false))
	var last *amqp.DeferredConfirmation
	for i := range n {
		key := fmt.Sprint("key-", i%slowKeys)
		last, err = ch.PublishWithDeferredConfirm("", "slow", false, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Headers: amqp.Table{"key": key}, Body: []byte(strings.Repeat("x", 100)),
		})
		must(b, err)
	}
	last.Wait()
	w := &slowWork{begun: make(chan struct{}), done: make(chan struct{}), want: int64(n)}
	stop := start(b, url, w)
	defer stop()
	<-w.begun
	begun := time.Now()
	select {
	case <-w.done:
	case <-time.After(benchDeadline):
		b.Fatalf("%d of %d messages handled after %s", w.count.Load(), n, benchDeadline)
	}
	return float64(n) / time.Since(begun).Seconds()
}

// slowConfig is the benchmark's handler as a plugin.
type slowConfig struct{ work *slowWork }

func (c *slowConfig) New(handlers.Env) (handlers.Handler, error) { return c, nil }

func (c *slowConfig) Handle(msg *message.Message) ([]*message.Message, error) {
	return nil, c.work.handle(msg)
}

func slowHost(b *testing.B, url string, w *slowWork) func() {
	set := plugin.Registered()
	set.Register("handler", plugin.Info{Name: "slow", Summary: "Takes its time.", New: func() any { return &slowConfig{w} }, Extra: handlers.Plugin{}})
	c, _, err := configs.Parse("slow.toml", fmt.Appendf(nil, `
[host]
admin = ""
[transport.broker]
type = "amqp"
url = %q
prefetch = 1000
[transport.broker.topic.slow]
exchange = "bench.slow"
queue = "slow"
[pipeline.slow]
from = "broker:slow"
handler = "slow"
key = "metadata.header.key"
on_error = "drop"
`, url), configs.Options{Plugins: set})
	must(b, err)
	c.Router.Logger = slog.New(slog.DiscardHandler)
	host, err := router.New(c.Router)
	must(b, err)
	must(b, host.Start(context.Background()))
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		must(b, host.Stop(ctx))
	}
}

func slowStockRouter(b *testing.B, url string, w *slowWork) func() {
	c := stockamqp.NewDurableQueueConfig(url)
	c.Consume.Qos.PrefetchCount = 1000
	c.Marshaler = stockamqp.DefaultMarshaler{}
	sub, err := stockamqp.NewSubscriber(c, watermill.NopLogger{})
	must(b, err)
	r := message.NewDefaultRouter(watermill.NopLogger{})
	r.AddConsumerHandler("slow", "slow", sub, w.handle)
	var work sync.WaitGroup
	work.Go(func() { _ = r.Run(context.Background()) })
	return func() {
		must(b, r.Close())
		work.Wait()
	}
}
