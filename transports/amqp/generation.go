package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// A generation is one consumer of a subscription, on one channel.
//
// A delivery tag has a meaning only on the channel of its delivery. So only the generation that
// received a delivery can ack it. After a loss the broker requeues the unacked messages, and the
// subscription begins a new generation.
//
// A generation has these states:
//
//   - It begins: it declares the topology, sets the prefetch and starts to consume.
//   - It delivers messages until its channel is lost, the subscription stops, or the prefetch has
//     to change.
//   - It ends in order (errStopped, errOtherPrefetch): it waits until all deliveries are settled,
//     writes the last acks, waits until the broker has forwarded them, and closes the channel.
//   - It ends at once after a loss or a Close: its context ends, so all unsettled deliveries are
//     void. Settling a void delivery does nothing.
//
// The consumer is never cancelled. When a consumer is cancelled, a quorum queue requeues the
// deliveries that are still on their way. It requeues them in front of older unacked messages
// (measured on RabbitMQ 3.10). So deliveries that arrive after the stop stay unacked. The broker
// requeues them, in order, when the channel closes.
//
// Invariants: each delivery is settled at most once. No frame is sent on a closed channel, because
// the broker would close the whole connection. When run returns, each of its deliveries is
// settled or void.
//
// Lock order: subscription.delivering comes first. The locks of acks and arrivals may be taken
// while it is locked. acks and arrivals are never locked at the same time.

// errStopped ends a generation because the subscription takes no more messages. errOtherPrefetch
// ends it because the subscription wants another prefetch.
var (
	errStopped       = errors.New("the subscription has ended")
	errOtherPrefetch = errors.New("the prefetch has to change")
)

// generation is a consumer of a subscription on one channel.
type generation struct {
	sub        *subscription
	ch         *amqp.Channel
	major      int // the broker's version
	deliveries <-chan amqp.Delivery
	closes     <-chan *amqp.Error

	// ctx is the context of all deliveries of this generation. voidDeliveries ends it.
	ctx            context.Context
	voidDeliveries context.CancelCauseFunc
	acks           *acks
	// arrivals counts the unsettled deliveries. allSettled gets a value when none is left.
	arrivals   *arrivals
	allSettled chan struct{}
	began      time.Time
	// received is the number of deliveries so far. receivedBefore is the value of received at the
	// last tick of the growth ticker.
	received, receivedBefore int
}

// beginGeneration declares the topology and starts to consume.
func (s *subscription) beginGeneration(conn *amqp.Connection) (*generation, error) {
	if err := s.route.declareTopology(conn, s.route.queue); err != nil {
		return nil, err
	}
	major := majorVersion(conn)
	s.learnLimit(major)
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("opening a channel: %w", plainError(err))
	}
	g := &generation{
		sub:        s,
		ch:         ch,
		major:      major,
		closes:     ch.NotifyClose(make(chan *amqp.Error, 1)),
		allSettled: make(chan struct{}, 1),
		acks:       newAcks(ch, func(n int) { s.route.counters.acked.Add(float64(n)) }),

		arrivals: newArrivals(s.t.env.Memory.InFlight),
		began:    time.Now(),
	}
	s.t.consumers.addConsumer(s.tag, g.arrivals)
	g.ctx, g.voidDeliveries = context.WithCancelCause(context.Background())
	if s.lost {
		err = awaitNoConsumer(s.stop, ch, s.route.queue)
	}
	if err != nil {
		err = fmt.Errorf("checking whether queue %q has a consumer: %w", s.route.queue, plainError(err))
	} else if err = ch.Qos(s.prefetch.current(), 0, false); err != nil {
		err = fmt.Errorf("setting the prefetch to %d: %w", s.prefetch.current(), plainError(err))
	} else if g.deliveries, err = ch.Consume(s.route.queue, s.tag, false, false, false, false, nil); err != nil {
		err = fmt.Errorf("consuming from queue %q: %w", s.route.queue, plainError(err))
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// returnTime is how long a new consumer waits for the end of a lost one. returnPause is the time
// between two checks for that end.
//
// A quorum queue requeues the deliveries of a lost consumer when it learns of the loss. After a
// kill of the broker, that is some hundred milliseconds after the broker accepts connections
// again. A consumer that starts before that gets newer messages first, up to its prefetch
// (measured on RabbitMQ 3.10). So a new consumer waits until the queue has no consumer. The wait
// has a limit, because other hosts may also consume from the queue, and their consumers stay.
const (
	returnTime  = 2 * time.Second
	returnPause = 20 * time.Millisecond
)

// queueInspector is the part of a channel that inspects a queue.
type queueInspector interface {
	QueueDeclarePassive(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
}

// awaitNoConsumer waits until a queue has no consumer, at most for returnTime.
func awaitNoConsumer(ctx context.Context, ch queueInspector, queue string) error {
	for began := time.Now(); time.Since(began) < returnTime; {
		q, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil)
		if err != nil || q.Consumers == 0 {
			return err
		}
		if !backoff.Sleep(ctx, returnPause) {
			return nil
		}
	}
	return nil
}

// close closes the channel. The broker requeues the unacked messages, in their old order, before
// the next consumer starts.
func (g *generation) close() {
	_ = g.ch.Close()
	g.sub.t.consumers.removeConsumer(g.sub.tag)
	g.arrivals.endConsumer()
}

// run delivers messages until the subscription ends or the consumer is lost, and returns why. When
// it returns, each delivery is settled or void.
func (g *generation) run() error {
	go g.acks.run()
	err := g.deliverMessages()
	if isOrderlyEnd(err) {
		err = g.awaitSettled(err)
	}
	stopped := isOrderlyEnd(err)
	if !stopped {
		g.voidDeliveries(transports.ErrVoid)
	}
	// Write the queued acks before the close. If a frame came after it, the broker would close the
	// whole connection.
	g.acks.stop()
	if stopped {
		g.forwardAcks()
	}
	g.close()
	return err
}

// isOrderlyEnd reports whether the host itself ended a generation.
func isOrderlyEnd(err error) bool {
	return errors.Is(err, errStopped) || errors.Is(err, errOtherPrefetch)
}

// settleTime is how long a channel stays open after its last ack, at a broker that doesn't know
// noCredit.
const settleTime = 500 * time.Millisecond

// noCredit are the arguments of a consumer that receives nothing. RabbitMQ 3 knows them, because
// its AMQP 1.0 plugin is built on them. RabbitMQ 4 ignores them.
var noCredit = amqp.Table{"x-credit": amqp.Table{"credit": int64(0), "drain": false}}

// forwardAcks returns when closing the channel can't lose an ack any more.
//
// The broker's channel process forwards acks to a quorum queue as entries of the queue's log. At
// most 32 entries may be on their way to the disk. The process keeps later acks until the queue
// has confirmed the entries. When the channel closes, the process drops the acks that it still
// keeps, and the queue redelivers messages that were acked (measured on RabbitMQ 3.10). AMQP
// offers no way to query whether the process keeps acks.
//
// But the channel process waits for the queue while it starts or cancels a consumer. So
// forwardAcks starts and cancels a consumer that receives nothing, and does so twice. After the
// first time, the entries that were on their way are on disk, and the process forwards the acks
// that it kept. It may learn a moment late that the entries are on disk. The second time covers
// that case. Then no ack can be lost, even if the disk is slow. An error means that the channel is
// lost, and then nothing can be done.
func (g *generation) forwardAcks() {
	if g.acks.wrote.IsZero() {
		return
	}
	if g.major != 3 {
		g.keepChannelOpen()
		return
	}
	for n := range 2 {
		tag := fmt.Sprintf("%s.stop-%d", g.sub.tag, n)
		if _, err := g.ch.Consume(g.sub.route.queue, tag, false, false, false, false, noCredit); err != nil {
			return
		}
		if err := g.ch.Cancel(tag, false); err != nil {
			return
		}
	}
}

// keepChannelOpen waits until settleTime has passed since the last ack.
func (g *generation) keepChannelOpen() {
	rest := time.NewTimer(settleTime - time.Since(g.acks.wrote))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-g.closes: //nolint:errcheck // the channel is lost: nothing is left to wait for
	case <-g.sub.subscriber.killed.Done():
	}
}

// deliverMessages gives each delivery to the subscription, and returns why it ended.
func (g *generation) deliverMessages() error {
	s := g.sub
	s.delivering.Lock()
	defer s.delivering.Unlock()
	if s.closed {
		return errKilled
	}
	skipped, look := g.arrivals.skipped, g.newGrowthTicker()
	defer look.Stop()
	for {
		if g.arrivals.isExhausted() {
			return g.reducePrefetch()
		}
		select {
		case d, ok := <-g.deliveries:
			if !ok {
				return g.endReason()
			}
			if s.stop.Err() != nil {
				return errStopped
			}
			if !g.arrivals.takeDelivery(len(d.Body)) {
				return g.reducePrefetch()
			}
			g.received++
			s.route.counters.consumed.Inc()
			if d.Redelivered {
				s.route.counters.redelivered.Inc()
				s.checkCount(&d)
			}
			s.take(g.newDelivery(&d))
		case <-skipped:
			skipped = nil // isExhausted reports when nothing is left to take
		case <-look.C:
			if g.canRestorePrefetch() {
				return g.restorePrefetch()
			}
		case e := <-g.closes:
			return plainError(e)
		case <-s.stop.Done():
			return errStopped
		}
	}
}

// reducePrefetch reduces the prefetch of the next generation.
func (g *generation) reducePrefetch() error {
	s, limit, largest := g.sub, g.arrivals.budget.Limit(), g.arrivals.largestSize()
	s.prefetch.reduceFor(limit, largest)
	s.t.env.Logger.Info("unsettled messages fill the memory limit; reducing the prefetch",
		"topic", s.route.topic, "prefetch", s.prefetch.current(), "largest", largest, "in_flight", limit)
	return errOtherPrefetch
}

// newGrowthTicker returns a ticker that runs while the prefetch is reduced.
func (g *generation) newGrowthTicker() *time.Ticker {
	t := time.NewTicker(quietTime)
	if g.sub.prefetch.reduced == 0 {
		t.Stop()
	}
	return t
}

// canRestorePrefetch reports whether the next generation can use the configured prefetch.
func (g *generation) canRestorePrefetch() bool {
	s, a := g.sub, g.arrivals
	came := g.received > g.receivedBefore
	g.receivedBefore = g.received
	switch {
	case a.budget.Full():
		return false
	case !came:
		return a.isIdle()
	default:
		return s.limit <= 0 && s.prefetch.canRestore(a.budget.Limit(), a.largestSize(), g.began)
	}
}

// restorePrefetch makes the next generation use the configured prefetch.
func (g *generation) restorePrefetch() error {
	g.sub.prefetch.reduced = 0
	g.sub.t.env.Logger.Info("restoring the configured prefetch", "topic", g.sub.route.topic, "prefetch", g.sub.prefetch.current())
	return errOtherPrefetch
}

// endReason returns why the library closed the channel of deliveries.
func (g *generation) endReason() error {
	if !g.ch.IsClosed() {
		return fmt.Errorf("the broker cancelled the consumer of queue %q: the queue was deleted or moved", g.sub.route.queue)
	}
	return plainError(<-g.closes)
}

// delivery is a delivery with all that is needed to settle it, in one allocation.
type delivery struct {
	transports.Delivery
	g       *generation
	tag     uint64
	settled atomic.Bool
}

// newDelivery turns a delivery of the library into one that a pipeline can settle.
func (g *generation) newDelivery(d *amqp.Delivery) *transports.Delivery {
	out := &delivery{Delivery: g.sub.t.marshaler.toDelivery(d), g: g, tag: d.DeliveryTag}
	out.Context, out.Settle = g.ctx, out.settleMessage
	return &out.Delivery
}

// settleMessage acks the message, or leaves it unacked if o is nil. It never nacks: a nack or
// reject counts as a delivery and changes the order. It does nothing if the delivery is void.
func (d *delivery) settleMessage(o *transports.Outcome) {
	g := d.g
	if g.ctx.Err() != nil || d.settled.Swap(true) {
		return
	}
	if o != nil {
		g.acks.queueAck(d.tag)
		g.sub.t.Answer(d.Metadata, o)
	}
	if g.arrivals.settleDelivery() {
		select {
		case g.allSettled <- struct{}{}:
		default:
		}
	}
}

// awaitSettled waits until all deliveries are settled, and then returns the reason why. If the
// channel is lost or the subscriber is closed first, it returns an error that says so.
func (g *generation) awaitSettled(why error) error {
	for !g.arrivals.isIdle() {
		select {
		case <-g.allSettled:
		case e := <-g.closes:
			return plainError(e)
		case <-g.sub.subscriber.killed.Done():
			return errKilled
		}
	}
	return why
}

// errKilled ends a generation at once. Its unsettled deliveries become void.
var errKilled = errors.New("closed")
