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

// publishing is a command that was published, and the channels on which the broker answers.
type publishing struct {
	*sending
	correlation string
	confirm     *amqp.DeferredConfirmation
	answers     <-chan amqp.Delivery
	returned    <-chan amqp.Return
	closed      <-chan *amqp.Error
}

// overAMQP publishes the command and waits for its result in a queue of this connection.
func (s *sending) overAMQP(ctx context.Context) ([]byte, error) {
	form := "the form is amqp://USER:PASSWORD@HOST:PORT/VHOST"
	if escape := redact.Unescaped(s.amqp); escape != "" {
		return nil, advise(errors.New("reading the AMQP URL: the user part has a character that must be escaped"), "write %s; %s", escape, form)
	}
	if err := plugin.CheckURL(s.amqp, []string{"amqp", "amqps"}); err != nil {
		return nil, advise(fmt.Errorf("reading the AMQP URL: %w", err), "%s", form)
	}
	uri, err := amqp.ParseURI(s.amqp)
	if err != nil { // the cause quotes the URL
		return nil, advise(errors.New("reading the AMQP URL: the URL isn't valid"), "%s", form)
	}
	server := net.JoinHostPort(uri.Host, strconv.Itoa(uri.Port))
	conn, err := amqp.DialConfig(s.amqp, amqp.Config{Dial: amqp.DefaultDial(answerTimeout)})
	if err != nil {
		return nil, advise(fmt.Errorf("connecting to %s: %w", server, err), "check that the broker runs there and accepts this user and virtual host")
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
	if err := p.awaitConfirm(ctx); err != nil {
		return nil, err
	}
	if s.wait == 0 {
		return p.accepted(), nil // even if the result has come already
	}
	return p.awaitResult(ctx, over.C)
}

// awaitConfirm waits until the broker has stored the command.
func (p *publishing) awaitConfirm(ctx context.Context) error {
	late := time.NewTimer(answerTimeout)
	defer late.Stop()
	select {
	case <-p.confirm.Done():
	case err := <-p.closed:
		return channelClosedError(err)
	case <-late.C:
		return advise(fmt.Errorf("command %s is undecided: the broker didn't confirm it within %s", p.id, answerTimeout), "%s", p.repeatAdvice(""))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// A broker returns an unroutable message before it confirms the message.
	select {
	case r := <-p.returned:
		return advise(fmt.Errorf("no queue receives messages of exchange %s with routing key %q: %s", p.exchange, p.routingKey, r.ReplyText),
			"start the host once so that it declares its queue, or check --exchange and --routing-key")
	case err := <-p.closed: // a closed channel also ends the wait for the confirm
		return channelClosedError(err)
	default:
	}
	if !p.confirm.Acked() {
		return errors.New("the broker refused the command")
	}
	return nil
}

// awaitResult waits for the result until over.
func (p *publishing) awaitResult(ctx context.Context, over <-chan time.Time) ([]byte, error) {
	for {
		select {
		case d, ok := <-p.answers:
			if ok && d.CorrelationId == p.correlation {
				return d.Body, nil
			} else if !ok {
				p.answers = nil // closed says why
			}
		case err := <-p.closed:
			return nil, channelClosedError(err)
		case <-over:
			return p.accepted(), nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func channelClosedError(err *amqp.Error) error {
	if err == nil {
		return errors.New("the broker closed the channel")
	}
	return advise(fmt.Errorf("the broker closed the channel: %w", err), "compare --exchange with the topic's table in the configuration")
}
