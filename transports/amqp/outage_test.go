package amqp

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// The tests below share one node, which boots once. Each test leaves it running.
func TestOutagesOfARealNode(t *testing.T) {
	t.Parallel()
	node := testenv.NewNode(t)
	t.Run("killed and restarted under load, absent at another's start", func(t *testing.T) { killedUnderLoad(t, node) })
	t.Run("memory alarm", func(t *testing.T) { memoryAlarm(t, node) })
	t.Run("connections closed by the operator", func(t *testing.T) { closedByOperator(t, node) })
	t.Run("a smaller limit for messages", func(t *testing.T) { smallerLimit(t, node) })
	t.Run("a smaller limit for frames", func(t *testing.T) { frameLimit(t, node) })
	t.Run("permission taken and given", func(t *testing.T) { accessRefused(t, node) })
}

// killedUnderLoad kills the broker while it publishes with confirms and consumes with acks. It
// sends unconfirmed messages again. When the broker is back, no confirmed message may be missing,
// and no acked message may be redelivered.
func killedUnderLoad(t *testing.T, node *testenv.Node) {
	const publishers, each = 10, 300
	url := node.VHost(t)
	r := start(t, config(url))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := r.subscribe(ctx, "t")
	var running sync.WaitGroup
	for n := range publishers {
		running.Go(func() {
			for i := range each {
				msg := outgoing(fmt.Sprint(n, "-", i))
				for r.publish("t", msg) != nil {
					if ctx.Err() != nil {
						return
					}
				}
			}
		})
	}
	seen := map[string]int{}
	take := func(until int) {
		for len(seen) < until {
			msg := next(t, out)
			seen[string(msg.Payload)]++
			msg.Ack()
		}
	}
	take(publishers * each / 4)
	node.Kill(t)
	r.sick("consumer connection", "retrying")
	r.sick("publisher connection", "retrying")
	present := absentAtStart(t, url)
	node.Start(t)
	began := time.Now()
	r.well("consumer connection")
	r.well("publisher connection")
	t.Logf("connected %s after the node takes connections", time.Since(began))
	take(publishers * each)
	running.Wait()
	r.logs(1, "the connection to the broker works again")
	if n := r.log.count("the connection to the broker doesn't work"); n != 1 {
		t.Errorf("the outage is logged %d times", n)
	}
	present()
}

// absentAtStart starts a transport whose broker is down. The returned function uses the transport
// once the broker is up.
func absentAtStart(t *testing.T, url string) (present func()) {
	if _, err := wamqp.NewSubscriber(wamqp.NewDurableQueueConfig(url), watermill.NopLogger{}); err == nil {
		t.Error("the stock constructor waits for the broker now")
	}
	r := start(t, config(url))
	out := r.subscribe(t.Context(), "late")
	r.sick("consumer connection", "refused")
	none(t, out)
	return func() {
		r.publishes("late", "one")
		next(t, out).Ack()
	}
}

// watermark sets how much memory the node may use before it blocks publishers.
func watermark(t *testing.T, node *testenv.Node, limit string) {
	t.Helper()
	node.Eval(t, fmt.Sprintf("vm_memory_monitor:set_vm_memory_high_watermark({absolute, %s})", limit))
}

// memoryAlarm checks that, while the broker blocks publishers, publishing gives up in time and
// acks go on. The stock publisher waits forever.
func memoryAlarm(t *testing.T, node *testenv.Node) {
	url := node.VHost(t)
	r := start(t, config(url, func(c *Config) { c.PublishTimeout = 2 * time.Second }))
	r.publishes("t", "0") // with patience for the connection
	for i := range 2 {
		if err := r.publish("t", outgoing(fmt.Sprint(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	out := r.subscribe(t.Context(), "t")
	msg := next(t, out)
	c := wamqp.NewDurableQueueConfig(url)
	c.Publish.ConfirmDelivery = true
	stock, err := wamqp.NewPublisher(c, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}

	watermark(t, node, "1")
	err = r.publish("t", outgoing("during"))
	if !errors.Is(err, transports.ErrUndecided) {
		t.Errorf("the first message during the alarm: %v", err)
	}
	r.sick("publisher connection", "blocks publishing", "memory")
	if err := r.tr.Accepts("t"); err == nil || !strings.Contains(err.Error(), "the broker blocks publishing: low on memory") {
		t.Errorf("accepting: %v", err)
	}
	if err := r.publish("t", outgoing("waiting")); err == nil || errors.Is(err, transports.ErrUndecided) || !strings.Contains(err.Error(), "not sent") {
		t.Errorf("the next one: %v", err)
	}
	if n := testutil.ToFloat64(r.tr.metrics.blocked); n != 1 {
		t.Errorf("the gauge says %v", n)
	}
	if err := r.health("consumer connection"); err != nil {
		t.Errorf("the consuming connection: %v", err)
	}
	msg.Ack()
	for range 2 {
		next(t, out).Ack()
	}
	r.counts("acks that go on", 3, r.tr.metrics.acked.WithLabelValues("t"))

	stuck := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		late := outgoing("stock")
		late.SetContext(ctx)
		stuck <- stock.Publish("stock", late)
	}()
	waited := make(chan error, 1)
	go func() {
		for {
			if err := r.publish("t", outgoing("after")); err == nil || t.Context().Err() != nil {
				waited <- err
				return
			}
		}
	}()
	select {
	case err := <-stuck:
		t.Errorf("the stock publisher keeps its context's deadline now: %v", err)
	case <-time.After(3 * time.Second):
	}

	watermark(t, node, "4000000000")
	if err := <-waited; err != nil {
		t.Error(err)
	}
	r.well("publisher connection")
	if err := r.tr.Accepts("t"); err != nil {
		t.Errorf("accepting: %v", err)
	}
	<-stuck
	if err := stock.Close(); err != nil {
		t.Error(err)
	}
	if n := testutil.ToFloat64(r.tr.metrics.blocked); n != 0 {
		t.Errorf("the gauge says %v", n)
	}
}

func closedByOperator(t *testing.T, node *testenv.Node) {
	url := node.VHost(t)
	r := start(t, config(url))
	out := r.subscribe(t.Context(), "t")
	if err := r.publish("t", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	msg := next(t, out)
	node.Eval(t, fmt.Sprintf(`rabbit_connection_tracking:close_connections(rabbit_connection_tracking:list(<<"%s">>), "maintenance", 0)`, testenv.VHostOf(url)))
	isVoid(t, msg.Context())
	again := next(t, out)
	if again.Metadata[transports.Redelivered] != "true" {
		t.Error("the message came again without saying so")
	}
	again.Ack()
	r.publishes("t", "two")
	await.That(r, "the log names the cause", func() (any, bool) { return r.log, r.log.count("maintenance") > 0 })
}

func TestAWrongPassword(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(testenv.Broker(t).VHost(t))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), "hunter2")
	r := start(t, config(u.String()))
	r.sick("publisher connection", "logging in to "+u.Hostname(), "as "+u.User.Username(), "not allowed")
	if strings.Contains(r.log.String(), "hunter2") {
		t.Error("the log shows the password")
	}
}
