package amqp

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// Tap implements transports.Tapper. It declares a queue for the tap, with the bindings of the
// topic's queue. It returns when the queue receives messages, so it needs a connection. After an
// outage it goes on with new messages.
func (t *transport) Tap(ctx context.Context, topic string) (<-chan *message.Message, error) {
	r, err := t.route(topic)
	if err != nil {
		return nil, err
	}
	if r.exchange == amqp.DefaultExchange {
		return nil, fmt.Errorf("tapping %s: the exchange %s delivers each message to a single queue, so a tap can't receive copies", topic, defaultExchange)
	}
	life, end := context.WithCancel(t.closing)
	unlink := context.AfterFunc(ctx, end)
	first, cancel := context.WithTimeout(life, t.config.ConnectTimeout)
	defer cancel()
	var tapped *tap
	s, err := t.consumer.awaitSession(first)
	if err == nil {
		tapped, err = openTap(s.conn, r)
	}
	if err != nil {
		unlink()
		end()
		return nil, fmt.Errorf("tapping %s: %w", topic, err)
	}
	out := transports.NewTapBuffer()
	if !t.startGoroutine(func() {
		defer end()
		defer unlink()
		defer out.Close()
		t.copyMessages(life, r, tapped, out)
	}) {
		unlink()
		end()
		return nil, fmt.Errorf("tapping %s: %w", topic, transports.ErrClosed)
	}
	return out.Messages(), nil
}

// tap is the consumer of a tap on one channel.
type tap struct {
	ch         *amqp.Channel
	deliveries <-chan amqp.Delivery
}

// openTap declares and binds the queue of a tap, and consumes from it.
func openTap(conn *amqp.Connection, r *route) (*tap, error) {
	if err := r.declareTopology(conn, ""); err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("opening a channel: %w", plainError(err))
	}
	fail := func(err error) (*tap, error) {
		_ = ch.Close()
		return nil, err
	}
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return fail(fmt.Errorf("declaring a queue: %w", plainError(err)))
	}
	if err := r.topology.bind(ch, queue.Name, r.exchange, r.config); err != nil {
		return fail(err)
	}
	deliveries, err := ch.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return fail(fmt.Errorf("consuming: %w", plainError(err)))
	}
	return &tap{ch: ch, deliveries: deliveries}, nil
}

// copyMessages copies messages to out until ctx ends.
func (t *transport) copyMessages(ctx context.Context, r *route, tapped *tap, out *transports.TapBuffer) {
	pauses := pausesOf(t.config.Reconnect)
	for {
		if tapped != nil && !tapped.copyUntilLost(ctx, t.marshaler, out) {
			return
		}
		s, err := t.consumer.awaitSession(ctx)
		if err != nil {
			return
		}
		if tapped, err = openTap(s.conn, r); err == nil {
			pauses.Reset()
		} else if !backoff.Sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// copyUntilLost copies messages to out. It returns false when ctx has ended, and true when the
// queue is lost.
func (t *tap) copyUntilLost(ctx context.Context, m *marshaler, out *transports.TapBuffer) bool {
	defer t.ch.Close()
	for {
		select {
		case d, ok := <-t.deliveries:
			if !ok {
				return ctx.Err() == nil
			}
			out.Offer(m.toMessage(&d))
		case <-ctx.Done():
			return false
		}
	}
}
