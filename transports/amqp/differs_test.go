package amqp

import (
	"errors"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

func TestCompare(t *testing.T) {
	for reason, want := range map[string]string{
		"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'long'":                              "the queue exists with arguments.x-max-length = 5, and this topic has none; ",
		"PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value 'quorum' of type 'longstr' but current is none":                      "the queue exists with queue_type = none, and this topic has quorum; ",
		"PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'it's' in vhost '/': received 'true' but current is 'false'":                                                   "",
		"PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'":                                                      "the queue exists with durable = false, and this topic has true; make both the same, set declare = false to use the queue as it is, or delete it: the broker says 406 ",
		"PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'e' in vhost 'v': received 'topic' but current is 'fanout'":                                                    "the exchange exists with kind = fanout, and this topic has topic; ",
		"PRECONDITION_FAILED - inequivalent arg 'alternate-exchange' for exchange 'e' in vhost '/': received none but current is the value 'it's' of type 'longstr'":               "the exchange exists with exchange_arguments.alternate-exchange = it's, and",
		"PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}":                                                                         "",
		"PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received the value '5' of type 'long' but current is the value '20' of type 'long'": "the queue exists with delivery_limit = 20, and this topic has 5; ",
	} {
		cause := &amqp.Error{Code: amqp.PreconditionFailed, Server: true, Reason: reason}
		err := explainDifference(cause)
		if d, ok := errors.AsType[*differenceError](err); ok != (want != "") || ok && !strings.HasPrefix(d.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if !strings.Contains(err.Error(), reason) || !errors.Is(err, cause) {
			t.Errorf("%v hides %s", err, reason)
		}
	}
	for _, other := range []error{errLost, &amqp.Error{Code: amqp.AccessRefused, Server: true, Reason: "ACCESS_REFUSED"}, errors.New("x")} {
		if _, ok := errors.AsType[*differenceError](explainDifference(other)); ok {
			t.Errorf("%v is a difference", other)
		}
	}
}

// The broker's error for a queue or exchange with other properties is understood, whatever the
// property.
func TestWhatDiffersIsNamed(t *testing.T) {
	t.Parallel()
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	for name, c := range map[string]struct {
		there  amqp.Table
		topic  TopicConfig
		differ string
	}{
		"max":        {amqp.Table{"x-max-length": int32(5)}, TopicConfig{}, "arguments.x-max-length = 5, and this topic has none"},
		"other-max":  {amqp.Table{"x-max-length": int32(5)}, TopicConfig{Arguments: map[string]any{"x-max-length": int64(7)}}, "arguments.x-max-length = 5, and this topic has 7"},
		"ttl":        {nil, TopicConfig{Arguments: map[string]any{"x-message-ttl": int64(60_000)}}, "arguments.x-message-ttl = none, and this topic has 60000"},
		"dlx":        {amqp.Table{"x-dead-letter-exchange": "dead"}, TopicConfig{Arguments: map[string]any{"x-dead-letter-exchange": "other"}}, "arguments.x-dead-letter-exchange = dead, and this topic has other"},
		"type":       {amqp.Table{"x-queue-type": "quorum"}, TopicConfig{QueueType: "classic"}, "queue_type = quorum, and this topic has classic"},
		"other-type": {amqp.Table{"x-queue-type": "classic"}, TopicConfig{QueueType: "quorum"}, "queue_type = classic, and this topic has quorum"},
		"limit":      {amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int32(20)}, TopicConfig{QueueType: "quorum", DeliveryLimit: 5}, "delivery_limit = 20, and this topic has 5"},
		"durable":    {nil, TopicConfig{Durable: new(false), Exchange: "amq.topic"}, "durable = true, and this topic has false"},
		"auto":       {nil, TopicConfig{AutoDelete: true}, "auto_delete = false, and this topic has true"},
	} {
		peer.queue(name, c.there)
		err := declared(t, url, name, c.topic)
		if err == nil || !strings.Contains(err.Error(), `declaring queue "`+name+`": the queue exists with `+c.differ+"; make both the same, set declare = false") {
			t.Errorf("%s: %v, want %s", name, err, c.differ)
		}
	}
	if err := peer.ch.ExchangeDeclare("fan", "fanout", true, false, false, false, amqp.Table{"alternate-exchange": "unrouted"}); err != nil {
		t.Fatal(err)
	}
	for want, topic := range map[string]TopicConfig{
		"kind = fanout, and this topic has topic":                                   {Exchange: "fan"},
		"exchange_arguments.alternate-exchange = unrouted, and this topic has none": {Exchange: "fan", Kind: "fanout"},
		"durable = true, and this topic has false":                                  {Exchange: "fan", Kind: "fanout", Durable: new(false), ExchangeArguments: map[string]any{"alternate-exchange": "unrouted"}},
	} {
		if err := declared(t, url, "q", topic); err == nil || !strings.Contains(err.Error(), `declaring exchange "fan": the exchange exists with `+want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// declared declares a topic on a connection of its own.
func declared(t *testing.T, url, name string, topic TopicConfig) error {
	t.Helper()
	c := config(url, func(c *Config) { c.Topics = map[string]TopicConfig{name: topic} })
	route, err := c.route(name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return route.declareTopology(conn, route.queue)
}
