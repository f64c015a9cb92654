package amqp

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	amqp "github.com/rabbitmq/amqp091-go"
)

// topology declares the exchange, queue and bindings of a topic, or checks that they exist.
// Watermill's own builder binds only one key, which it derives from the queue's name and not from
// the topic's name.
type topology struct {
	keys  []string
	check bool
}

var _ wamqp.TopologyBuilder = topology{}

// BuildTopology declares or checks exchange, queue and bindings. If the queue's name is empty, it
// leaves out queue and bindings, because another connection declares them.
func (t topology) BuildTopology(ch *amqp.Channel, queue, exchange string, c wamqp.Config, _ watermill.LoggerAdapter) error {
	if err := t.ExchangeDeclare(ch, exchange, c); err != nil {
		return err
	}
	if queue == "" {
		return nil
	}
	if t.check {
		if _, err := ch.QueueDeclarePassive(queue, c.Queue.Durable, c.Queue.AutoDelete, c.Queue.Exclusive, false, c.Queue.Arguments); err != nil {
			return fmt.Errorf("checking queue %q: %w", queue, plainError(err))
		}
		return nil
	}
	if _, err := ch.QueueDeclare(queue, c.Queue.Durable, c.Queue.AutoDelete, c.Queue.Exclusive, false, c.Queue.Arguments); err != nil {
		return fmt.Errorf("declaring queue %q: %w", queue, explainDifference(err))
	}
	return t.bind(ch, queue, exchange, c)
}

// bind binds a queue with each key. The nameless exchange needs no bindings: the broker has bound
// every queue to it by the queue's name.
func (t topology) bind(ch *amqp.Channel, queue, exchange string, c wamqp.Config) error {
	if exchange == amqp.DefaultExchange {
		return nil
	}
	for _, key := range t.keys {
		if err := ch.QueueBind(queue, key, exchange, false, c.QueueBind.Arguments); err != nil {
			return fmt.Errorf("binding queue %q by %q to exchange %q: %w", queue, key, exchange, plainError(err))
		}
	}
	return nil
}

// ExchangeDeclare declares or checks an exchange. The broker's own exchanges (amq.topic and
// others) are only checked.
func (t topology) ExchangeDeclare(ch *amqp.Channel, exchange string, c wamqp.Config) error {
	e := c.Exchange
	switch {
	case exchange == amqp.DefaultExchange:
		return nil
	case t.check || strings.HasPrefix(exchange, "amq."):
		if err := ch.ExchangeDeclarePassive(exchange, e.Type, e.Durable, e.AutoDeleted, e.Internal, false, e.Arguments); err != nil {
			return fmt.Errorf("checking exchange %q: %w", exchange, plainError(err))
		}
	default:
		if err := ch.ExchangeDeclare(exchange, e.Type, e.Durable, e.AutoDeleted, e.Internal, false, e.Arguments); err != nil {
			return fmt.Errorf("declaring exchange %q: %w", exchange, explainDifference(err))
		}
	}
	return nil
}

// wasDeclaredUntyped reports whether the broker refused to declare a classic queue only because
// the queue was declared without a type. Such a queue is a classic queue, but some RabbitMQ
// releases treat the two declarations as different.
func (r *route) wasDeclaredUntyped(err error) bool {
	refused, ok := errors.AsType[*amqp.Error](err)
	return ok && refused.Code == amqp.PreconditionFailed && r.config.Queue.Arguments[amqp.QueueTypeArg] == classic &&
		strings.Contains(refused.Reason, "'"+amqp.QueueTypeArg+"'") && strings.Contains(refused.Reason, "current is none")
}

// declareTopology declares or checks a topic on a channel of its own, because an error closes the
// channel.
func (r *route) declareTopology(conn *amqp.Connection, queue string) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("opening a channel: %w", plainError(err))
	}
	config := r.config
	if config.Queue.Arguments, err = r.queueArguments(majorVersion(conn)); err != nil {
		_ = ch.Close()
		return err
	}
	err = r.topology.BuildTopology(ch, queue, r.exchange, config, watermill.NopLogger{})
	if r.wasDeclaredUntyped(err) {
		config.Queue.Arguments = maps.Clone(config.Queue.Arguments)
		delete(config.Queue.Arguments, amqp.QueueTypeArg)
		if ch, err = conn.Channel(); err != nil {
			return fmt.Errorf("opening a channel: %w", plainError(err))
		}
		err = r.topology.BuildTopology(ch, queue, r.exchange, config, watermill.NopLogger{})
	}
	if err != nil {
		return err
	}
	if err := ch.Close(); err != nil {
		return fmt.Errorf("closing a channel: %w", plainError(err))
	}
	return nil
}
