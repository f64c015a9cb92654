package amqp

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus/testutil"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// handled is the outcome of a message without an error.
var handled = &transports.Outcome{Code: 200}

func TestADeliveryIsSettledWhileItIsHandedOut(t *testing.T) {
	const n = 200
	url, peer := queued(t)
	for i := range n {
		peer.put("q", fmt.Sprint(i))
	}
	r := start(t, config(url, onQueue, func(c *Config) { c.Prefetch = 10 }))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var taken atomic.Int64
	ended, err := r.subscriber().Subscribe(ctx, "q", func(d *transports.Delivery) {
		if want := fmt.Sprint(taken.Add(1) - 1); string(d.Payload) != want {
			t.Errorf("received %q, want %s", d.Payload, want)
		}
		d.Settle(handled)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.counts("acks", n, r.tr.metrics.acked.WithLabelValues("q"))
	cancel()
	closed(t, ended)
	peer.holds("q", 0)
}

func TestOnlyTheFirstSettleCounts(t *testing.T) {
	url, peer := queued(t)
	peer.put("q", "one", "two", "three")
	r := start(t, config(url, onQueue))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := r.take(ctx, r.subscriber(), "q")
	one, two, three := next(t, out), next(t, out), next(t, out)
	cancel()
	for _, o := range []*transports.Outcome{nil, handled, handled} {
		one.Settle(o)
	}
	for _, o := range []*transports.Outcome{handled, nil, handled} {
		two.Settle(o)
	}
	none(t, ended)
	three.Settle(handled)
	closed(t, ended)
	if n := testutil.ToFloat64(r.tr.metrics.acked.WithLabelValues("q")); n != 2 {
		t.Errorf("%v acks were counted", n)
	}
	again, _ := r.take(t.Context(), r.subscriber(), "q")
	if d := next(t, again); string(d.Payload) != "one" || d.Metadata[transports.Redelivered] != "true" {
		t.Errorf("received %q, metadata %v", d.Payload, d.Metadata)
	}
	none(t, again)
}

func TestNothingComesOfSettlingAVoidDelivery(t *testing.T) {
	url := testenv.Broker(t).VHost(t)
	proxy, cuttable := testenv.Through(t, url)
	peer := dial(t, url)
	peer.queue("q", nil)
	peer.queue("answers", nil)
	peer.send("q", amqp.Publishing{Body: []byte("one"), ReplyTo: "answers"})
	r := start(t, config(cuttable, onQueue, answersTo))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := r.take(ctx, r.subscriber(), "q")
	lost := next(t, out)
	proxy.Cut()
	isVoid(t, lost.Context)
	d := next(t, out)
	lost.Settle(&transports.Outcome{Messages: []*message.Message{outgoing("too late")}})
	lost.Settle(nil)
	cancel()
	none(t, ended)
	d.Settle(&transports.Outcome{Messages: []*message.Message{outgoing("in time")}})
	closed(t, ended)
	if n := testutil.ToFloat64(r.tr.metrics.acked.WithLabelValues("q")); n != 1 {
		t.Errorf("%v acks were counted", n)
	}
	if got := peer.get("answers"); string(got.Body) != "in time" {
		t.Errorf("received %q", got.Body)
	}
	peer.holds("q", 0)
}

// Messages that are acked before Close are gone, and all others are requeued.
func TestSettlingDuringClose(t *testing.T) {
	const n = 500
	url, peer := queued(t)
	for i := range n {
		peer.put("q", fmt.Sprint(i))
	}
	r := start(t, config(url, onQueue))
	s := r.subscriber()
	out, ended := r.take(t.Context(), s, "q")
	var deliveries []*transports.Delivery
	for range n {
		deliveries = append(deliveries, next(t, out))
	}
	var settling sync.WaitGroup
	half := make(chan struct{})
	for part := range 2 {
		settling.Go(func() {
			for i, d := range deliveries {
				if i == n/2 && part == 0 {
					close(half)
				}
				d.Settle(handled)
			}
		})
	}
	<-half
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	await.Closed(t, "done is closed", ended)
	settling.Wait()
	acked := testutil.ToFloat64(r.tr.metrics.acked.WithLabelValues("q"))
	if acked < n/2-1 {
		t.Errorf("%v acks, but half were settled before Close", acked)
	}
	peer.holds("q", n-int(acked))
}

// The queue's log isn't written for a while, as on a disk that stalls. A channel that closes in
// order waits for it, and only the message that wasn't settled is left.
func TestNoAckIsLostWhenTheDiskOfTheBrokerStalls(t *testing.T) {
	const n = 200
	node := testenv.NewNode(t)
	url := node.VHost(t)
	peer := dial(t, url)
	peer.queue("q", amqp.Table{amqp.QueueTypeArg: quorum})
	for i := range n {
		peer.put("q", fmt.Sprint(i))
	}
	r := start(t, config(url, topics(map[string]TopicConfig{"q": {Queue: "q", QueueType: quorum, Prefetch: n}})))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, ended := r.take(ctx, r.subscriber(), "q")
	var deliveries []*transports.Delivery
	for range n {
		deliveries = append(deliveries, next(t, out))
	}
	node.Eval(t, "sys:suspend(ra_log_wal)")
	// The first message isn't settled, so each ack needs a frame of its own.
	for _, d := range deliveries[1:] {
		d.Settle(handled)
	}
	cancel()
	deliveries[0].Settle(nil)
	none(t, ended)
	node.Eval(t, "timer:sleep(1000), sys:resume(ra_log_wal)")
	closed(t, ended)
	peer.holds("q", 1)
	if got := peer.get("q"); string(got.Body) != "0" {
		t.Errorf("received %q", got.Body)
	}
}
