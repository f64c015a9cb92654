package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/redact"
)

// publishing is a command that was published and not yet answered.
type publishing struct {
	*sending
	correlation string
	confirm     *amqp.DeferredConfirmation
	answers     <-chan amqp.Delivery
	returned    <-chan amqp.Return
	closed      <-chan *amqp.Error
}

// overAMQP publishes the command and waits for its result in a queue that only this connection has.
func (s *sending) overAMQP(ctx context.Context) ([]byte, error) {
	form := "the form is amqp://USER:PASSWORD@HOST:PORT/VHOST"
	if escape := redact.Unescaped(s.amqp); escape != "" {
		return nil, advise(errors.New("reading the AMQP URL: its user part has a character that must be escaped"), "write %s; %s", escape, form)
	}
	if err := plugin.CheckURL(s.amqp, []string{"amqp", "amqps"}); err != nil {
		return nil, advise(fmt.Errorf("reading the AMQP URL: %w", err), "%s", form)
	}
	uri, err := amqp.ParseURI(s.amqp)
	if err != nil { // the cause quotes the URL
		return nil, advise(errors.New("reading the AMQP URL: it has no valid form"), "%s", form)
	}
	server := net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	conn, err := amqp.DialConfig(s.amqp, amqp.Config{Dial: amqp.DefaultDial(takes)})
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
	p := publishing{sending: s, correlation: uuid.NewString()}
	if p.answers, err = ch.Consume(queue.Name, "", true, true, false, false, nil); err != nil {
		return nil, fmt.Errorf("consuming the reply queue: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("asking for confirms: %w", err)
	}
	p.returned = ch.NotifyReturn(make(chan amqp.Return, 1))
	p.closed = ch.NotifyClose(make(chan *amqp.Error, 1))

	p.confirm, err = ch.PublishWithDeferredConfirmWithContext(ctx, s.exchange, s.routingKey, true, false, amqp.Publishing{
		ContentType: "application/json", DeliveryMode: amqp.Persistent, Timestamp: time.Now(),
		MessageId: s.id, CorrelationId: p.correlation, ReplyTo: queue.Name, Body: s.body,
	})
	if err != nil {
		return nil, advise(fmt.Errorf("publishing to exchange %s: %w", s.exchange, err), "exchange, routing key and id have at most 255 bytes each")
	}
	over := time.NewTimer(s.wait)
	defer over.Stop()
	if err := p.confirmed(ctx); err != nil {
		return nil, err
	}
	if s.wait == 0 {
		return p.taken(), nil // though the result may be there
	}
	return p.answer(ctx, over.C)
}

// confirmed waits until the broker has the command.
func (p *publishing) confirmed(ctx context.Context) error {
	late := time.NewTimer(takes)
	defer late.Stop()
	select {
	case <-p.confirm.Done():
	case err := <-p.closed:
		return refusedBy(err)
	case <-late.C:
		return advise(fmt.Errorf("command %s is undecided: the broker didn't confirm it within %s", p.id, takes), "%s", p.again(""))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// The broker returns an unroutable message before it confirms it.
	select {
	case r := <-p.returned:
		return advise(fmt.Errorf("no queue takes messages of exchange %s with routing key %q: %s", p.exchange, p.routingKey, r.ReplyText),
			"start the host once so that it declares its queue, or check --exchange and --routing-key")
	case err := <-p.closed: // which ends the waiting for confirms too
		return refusedBy(err)
	default:
	}
	if !p.confirm.Acked() {
		return errors.New("the broker did not take the command")
	}
	return nil
}

// answer waits for the result until over.
func (p *publishing) answer(ctx context.Context, over <-chan time.Time) ([]byte, error) {
	for {
		select {
		case d, ok := <-p.answers:
			if ok && d.CorrelationId == p.correlation {
				return d.Body, nil
			} else if !ok {
				p.answers = nil // closed says why
			}
		case err := <-p.closed:
			return nil, refusedBy(err)
		case <-over:
			return p.taken(), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func refusedBy(err *amqp.Error) error {
	if err == nil {
		return errors.New("the broker closed the channel")
	}
	return advise(fmt.Errorf("the broker closed the channel: %w", err), "check --exchange against the topic's table in the configuration")
}
