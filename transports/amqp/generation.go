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

// errStopped ends a generation because nobody wants more messages, errOtherPrefetch because another
// prefetch is wanted.
var (
	errStopped       = errors.New("the subscription has ended")
	errOtherPrefetch = errors.New("another prefetch is wanted")
)

// generation is a subscription's consumer on one channel. Delivery tags mean nothing on any other
// channel: an ack is sent only by the generation that received the delivery, and is dropped when
// that generation ends.
type generation struct {
	sub        *subscription
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
	closes     <-chan *amqp.Error

	// ctx is the context of all deliveries of this generation; void ends it.
	ctx            context.Context
	voidDeliveries context.CancelCauseFunc
	acks           *acks
	// arrivals are the deliveries that aren't settled; idle is told when none is out.
	arrivals   *arrivals
	allSettled chan struct{}
	began      time.Time
	// taken and lookedAt are how many deliveries were taken, now and at the last look.
	received, receivedBefore int
}

// begin makes the topology and starts to consume.
func (s *subscription) beginGeneration(conn *amqp.Connection) (*generation, error) {
	if err := s.route.declareTopology(conn, s.route.queue); err != nil {
		return nil, err
	}
	s.learnLimit(majorVersion(conn))
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("opening a channel: %w", plainError(err))
	}
	g := &generation{
		sub:        s,
		ch:         ch,
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
		err = fmt.Errorf("looking whether queue %q has a consumer: %w", s.route.queue, plainError(err))
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

// A quorum queue puts the deliveries of a lost consumer back when it learns of the loss. After the
// broker was killed that is some hundred milliseconds after it takes connections again: who
// consumes before that gets newer messages first, as many as the prefetch (measured on RabbitMQ
// 3.10). So a new consumer waits until the queue has none. It doesn't wait long, as others may
// consume from the queue too.
const (
	returnTime  = 2 * time.Second
	returnPause = 20 * time.Millisecond
)

// queueLooker is the part of a channel that looks at a queue.
type queueInspector interface {
	QueueDeclarePassive(name string, durable, autoDelete, exclusive, noWait bool, args amqp.Table) (amqp.Queue, error)
}

// awaitReturn waits until nobody consumes from a queue, at most for returnTime.
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

// close closes the channel. What is unacked goes back to the queue, in its old order, before anybody
// consumes again.
func (g *generation) close() {
	_ = g.ch.Close()
	g.sub.t.consumers.removeConsumer(g.sub.tag)
	g.arrivals.endConsumer()
}

// run hands out deliveries until the subscription ends or the consumer is lost, and returns why.
// Whatever was handed out is settled or void then.
//
// The consumer is never cancelled: a quorum queue takes the deliveries back that a cancel meets
// on their way, before the older ones that are still unacked (measured on RabbitMQ 3.10). What
// comes after the end of the subscription stays unacked instead, within the window, and goes back
// with the rest when the channel is closed.
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
	// What was acked before is still written, if the channel is there. Anything that is sent on a
	// channel after its close costs the whole connection.
	g.acks.stop()
	if stopped {
		g.keepChannelOpen()
	}
	g.close()
	return err
}

// orderly reports whether a generation ended for a reason of this host's.
func isOrderlyEnd(err error) bool {
	return errors.Is(err, errStopped) || errors.Is(err, errOtherPrefetch)
}

// settleTime is how long a channel stays open after its last ack. A quorum queue takes acks from the channel's process in the broker,
// which keeps those that the queue hasn't taken yet and drops them with the channel: closed at once after a burst of acks, what was acked
// comes again (measured on RabbitMQ 3.10). AMQP has no way to ask whether it is done.
const settleTime = 500 * time.Millisecond

func (g *generation) keepChannelOpen() {
	rest := time.NewTimer(settleTime - time.Since(g.acks.wrote))
	defer rest.Stop()
	select {
	case <-rest.C:
	case <-g.closes: //nolint:errcheck // the stop is over either way
	case <-g.sub.subscriber.killed.Done():
	}
}

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
			skipped = nil // exhausted says when all else is taken
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

// reduce has the next consumer ask for fewer messages.
func (g *generation) reducePrefetch() error {
	s, limit, largest := g.sub, g.arrivals.budget.Limit(), g.arrivals.largestSize()
	s.prefetch.reduceFor(limit, largest)
	s.t.env.Logger.Info("messages in flight take as many bytes as they may; asking the broker for fewer",
		"topic", s.route.topic, "prefetch", s.prefetch.current(), "largest", largest, "in_flight", limit)
	return errOtherPrefetch
}

// looks ticks while the prefetch is reduced.
func (g *generation) newGrowthTicker() *time.Ticker {
	t := time.NewTicker(quietTime)
	if g.sub.prefetch.reduced == 0 {
		t.Stop()
	}
	return t
}

// grows reports whether the prefetch can be the configured one again.
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

func (g *generation) restorePrefetch() error {
	g.sub.prefetch.reduced = 0
	g.sub.t.env.Logger.Info("asking the broker for as many messages as configured again", "topic", g.sub.route.topic, "prefetch", g.sub.prefetch.current())
	return errOtherPrefetch
}

// ended says why the deliveries ended.
func (g *generation) endReason() error {
	if !g.ch.IsClosed() {
		return fmt.Errorf("the broker cancelled the consumer of queue %q: the queue was deleted or moved", g.sub.route.queue)
	}
	return plainError(<-g.closes)
}

// delivery is a delivery with what its end needs, in one piece of memory.
type delivery struct {
	transports.Delivery
	g       *generation
	tag     uint64
	settled atomic.Bool
}

func (g *generation) newDelivery(d *amqp.Delivery) *transports.Delivery {
	out := &delivery{Delivery: g.sub.t.marshaler.toDelivery(d), g: g, tag: d.DeliveryTag}
	out.Context, out.Settle = g.ctx, out.settleMessage
	return &out.Delivery
}

// settle acks the message, or leaves it unacked: nack and reject would count a delivery and lose
// the order. It does nothing once the generation is void.
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

// wind waits until the deliveries that are out are settled, and returns why.
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

// errKilled ends a generation at once; what is out becomes void.
var errKilled = errors.New("closed")
