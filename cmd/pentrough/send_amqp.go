package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
)

// overAMQP publishes the command and waits for its result in a queue that only this connection has.
func (s *sending) overAMQP(ctx context.Context, id string, body []byte) ([]byte, error) {
	server := s.amqp
	if u, err := url.Parse(s.amqp); err == nil {
		server = u.Redacted()
	}
	conn, err := amqp.DialConfig(s.amqp, amqp.Config{Dial: amqp.DefaultDial(10 * time.Second)})
	if err != nil {
		return nil, advise(fmt.Errorf("connecting to %s: %w", server, err), "check that the broker runs there and takes this user and virtual host")
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("opening a channel on %s: %w", server, err)
	}
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, fmt.Errorf("declaring the reply queue: %w", err)
	}
	answers, err := ch.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return nil, fmt.Errorf("consuming the reply queue: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("asking for confirms: %w", err)
	}
	returned := ch.NotifyReturn(make(chan amqp.Return, 1))
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))

	correlation := uuid.NewString()
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, s.exchange, s.routingKey, true, false, amqp.Publishing{
		ContentType: "application/json", DeliveryMode: amqp.Persistent, Timestamp: time.Now(),
		MessageId: id, CorrelationId: correlation, ReplyTo: queue.Name, Body: body,
	})
	if err != nil {
		return nil, fmt.Errorf("publishing to exchange %s: %w", s.exchange, err)
	}
	return s.await(ctx, id, correlation, answers, confirm, returned, closed)
}

func (s *sending) await(
	ctx context.Context, id, correlation string,
	answers <-chan amqp.Delivery, confirm *amqp.DeferredConfirmation, returned <-chan amqp.Return, closed <-chan *amqp.Error,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	confirmed, state := confirm.Done(), "not confirmed"
	for {
		select {
		case d, ok := <-answers:
			if !ok {
				answers = nil
			} else if d.CorrelationId == correlation {
				return d.Body, nil
			}
		case <-confirmed:
			// The broker returns an unroutable message before it confirms it.
			select {
			case r := <-returned:
				return nil, s.unroutable(r)
			case err := <-closed:
				return nil, refusedBy(err)
			default:
			}
			if !confirm.Acked() {
				return nil, errors.New("the broker did not take the command")
			}
			confirmed, state = nil, "with the broker"
		case r := <-returned:
			return nil, s.unroutable(r)
		case err := <-closed:
			return nil, refusedBy(err)
		case <-ctx.Done():
			return nil, advise(fmt.Errorf("no result for command %s within %s; it is %s", id, s.wait, state),
				"check that a host consumes the queue; send it again with --id %s and it isn't run twice while dedup remembers it", id)
		}
	}
}

func (s *sending) unroutable(r amqp.Return) error {
	return advise(fmt.Errorf("no queue takes messages of exchange %s with routing key %q: %s", s.exchange, s.routingKey, r.ReplyText),
		"start the host once so that it declares its queue, or check --exchange and --routing-key")
}

func refusedBy(err *amqp.Error) error {
	if err == nil {
		return errors.New("the broker closed the channel")
	}
	return advise(fmt.Errorf("the broker closed the channel: %w", err), "check --exchange against the topic's table in the configuration")
}
