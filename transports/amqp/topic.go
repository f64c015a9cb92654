package amqp

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// The defaults of topics, and values that settings may have.
const (
	pentroughExchange = "pentrough"
	defaultExchange   = "amq.default"
	classic           = "classic"
	quorum            = "quorum"
	drop              = "drop"
)

// maxShortString is the largest size of AMQP's short strings, in bytes: names, keys and most
// properties.
const maxShortString = 255

// TopicConfig is one `[transport.NAME.topic.TOPIC]` table. A topic is an exchange, which the host
// publishes to, and a queue, which it consumes from. The queue is bound to the exchange.
type TopicConfig struct {
	Exchange          string         `toml:"exchange" doc:"The exchange to publish to, and to bind the queue to; default: \"pentrough\". \"amq.default\" is the broker's nameless exchange: it delivers to the queue that the routing key names."`
	Kind              string         `toml:"kind" doc:"The exchange's kind; default: topic." enum:"direct,fanout,topic,headers"`
	ExchangeArguments map[string]any `toml:"exchange_arguments" doc:"Arguments of the exchange's declaration." example:"{ alternate-exchange = \"unrouted\" }"`

	Queue         string         `toml:"queue" doc:"The queue to consume from; default: the topic's name."`
	QueueType     string         `toml:"queue_type" doc:"The queue's type; default: the default type of the virtual host, normally classic." enum:"classic,quorum"`
	DeliveryLimit int            `toml:"delivery_limit" doc:"How often a quorum queue redelivers a message before it drops or dead-letters it; -1 means no limit. RabbitMQ 3 has no limit by default, RabbitMQ 4 has 20." min:"-1"`
	Arguments     map[string]any `toml:"arguments" doc:"Further arguments of the queue's declaration." example:"{ x-message-ttl = 60000 }"`
	AutoDelete    bool           `toml:"auto_delete" doc:"Whether the broker deletes the queue after its last consumer has ended."`
	Exclusive     bool           `toml:"exclusive" doc:"Whether the queue belongs to this host's connection. The broker deletes it when the connection ends."`
	Durable       *bool          `toml:"durable" doc:"Whether exchange and queue survive a restart of the broker; default: true."`
	Declare       *bool          `toml:"declare" doc:"Whether the host creates missing exchanges, queues and bindings. With false it only checks that exchange and queue exist. Default: true."`

	RoutingKey        []string       `toml:"routing_key" doc:"The key or keys that bind the queue to the exchange; default: the topic's name." example:"[\"device.#\", \"gateway.*\"]"`
	BindingArguments  map[string]any `toml:"binding_arguments" doc:"Arguments of the bindings. A headers exchange routes by them." example:"{ x-match = \"all\", region = \"north\" }"`
	PublishRoutingKey string         `toml:"publish_routing_key" doc:"The key to publish with; default: routing_key, if that is one key without wildcards, and otherwise the topic's name."`

	Prefetch   int    `toml:"prefetch" doc:"The window: how many unsettled messages one consumer of this topic may have; default: the transport's." min:"1" max:"65535" unit:"messages"`
	Unroutable string `toml:"unroutable" doc:"What to do with a published message that is routed to no queue: retry sends it again until a queue takes it, drop counts and drops it. Default: retry." enum:"retry,drop"`
}

func (t *TopicConfig) validate(at, name string) (errs []error) {
	invalid := func(field, format string, args ...any) {
		errs = append(errs, transports.Invalid(at+"."+field, format, args...))
	}
	if err := checkName(name); err != nil && t.Queue == "" {
		invalid("queue", "the topic's name can't be the name of a queue: it %v", err)
	}
	if t.Queue != "" {
		if err := checkName(t.Queue); err != nil {
			invalid("queue", "%v", err)
		}
	}
	if len(t.Exchange) > maxShortString {
		invalid("exchange", "is longer than %d bytes", maxShortString)
	}
	for field, c := range map[string]struct {
		value   string
		allowed []string
	}{
		"kind":       {t.Kind, []string{amqp.ExchangeDirect, amqp.ExchangeFanout, amqp.ExchangeTopic, amqp.ExchangeHeaders}},
		"queue_type": {t.QueueType, []string{classic, quorum}},
		"unroutable": {t.Unroutable, []string{"retry", drop}},
	} {
		if c.value != "" && !slices.Contains(c.allowed, c.value) {
			invalid(field, "%q is not one of %s", c.value, strings.Join(c.allowed, ", "))
		}
	}
	if t.Exchange == defaultExchange && (len(t.RoutingKey) > 0 || len(t.BindingArguments) > 0 || len(t.ExchangeArguments) > 0 || t.Kind != "") {
		invalid("exchange", "%s delivers to the queue that the routing key names: it has no kind, arguments or bindings", defaultExchange)
	}
	if t.QueueType == quorum && (t.Durable != nil && !*t.Durable || t.AutoDelete || t.Exclusive) {
		invalid("queue_type", "a quorum queue is durable and neither auto_delete nor exclusive")
	}
	if t.DeliveryLimit < unlimited || t.DeliveryLimit != 0 && t.QueueType != quorum {
		invalid("delivery_limit", "needs queue_type = %q, and is at least 1, or -1 for no limit", quorum)
	}
	if slices.ContainsFunc(t.RoutingKey, func(key string) bool { return len(key) > maxShortString }) {
		invalid("routing_key", "a key is longer than %d bytes", maxShortString)
	}
	if len(t.PublishRoutingKey) > maxShortString {
		invalid("publish_routing_key", "is longer than %d bytes", maxShortString)
	}
	if len(t.RoutingKey) > 1 && t.Kind == amqp.ExchangeFanout {
		invalid("routing_key", "a fanout exchange doesn't use keys")
	}
	if t.Prefetch < 0 || t.Prefetch > math.MaxUint16 {
		invalid("prefetch", "%d is not from 1 to %d", t.Prefetch, math.MaxUint16)
	}
	for field, args := range map[string]map[string]any{
		"arguments":          t.Arguments,
		"exchange_arguments": t.ExchangeArguments,
		"binding_arguments":  t.BindingArguments,
	} {
		if _, err := amqpTable(args); err != nil {
			invalid(field, "%v", err)
		}
	}
	return errs
}

// route is a topic's exchange, queue and keys in the broker.
type route struct {
	topic      string
	exchange   string
	queue      string
	publishKey string
	prefetch   int
	drop       bool
	declare    bool
	noLimit    bool // delivery_limit is -1
	topology   topology
	// config has all other settings, in Watermill's types.
	config wamqp.Config
	// counters are set by the transport.
	counters topicCounters
}

func (c *Config) route(name string) (*route, error) {
	t := c.Topics[name]
	r := &route{
		topic:    name,
		exchange: orDefault(t.Exchange, pentroughExchange),
		queue:    orDefault(t.Queue, name),
		prefetch: c.Prefetch,
		drop:     t.Unroutable == drop,
		declare:  t.Declare == nil || *t.Declare,
	}
	if t.Prefetch > 0 {
		r.prefetch = t.Prefetch
	}
	if r.exchange == defaultExchange {
		r.exchange = amqp.DefaultExchange
	}
	keys := t.RoutingKey
	if len(keys) == 0 {
		keys = []string{name}
	}
	r.publishKey = publishKey(t, name, r)
	r.topology = topology{keys: keys, check: !r.declare}
	args, err := amqpTable(t.Arguments)
	if err != nil {
		return nil, fmt.Errorf("topic %s: arguments: %w", name, err)
	}
	exchangeArgs, err := amqpTable(t.ExchangeArguments)
	if err != nil {
		return nil, fmt.Errorf("topic %s: exchange_arguments: %w", name, err)
	}
	bindingArgs, err := amqpTable(t.BindingArguments)
	if err != nil {
		return nil, fmt.Errorf("topic %s: binding_arguments: %w", name, err)
	}
	// Without a type the broker uses the default type of the virtual host.
	if t.QueueType != "" {
		args[amqp.QueueTypeArg] = t.QueueType
	}
	switch r.noLimit = t.DeliveryLimit == unlimited; {
	case r.noLimit:
		delete(args, limitArg)
	case t.DeliveryLimit > 0:
		args[limitArg] = int64(t.DeliveryLimit)
	}
	durable := t.Durable == nil || *t.Durable
	r.config = wamqp.Config{
		Exchange: wamqp.ExchangeConfig{
			GenerateName: func(string) string { return r.exchange },
			Type:         orDefault(t.Kind, amqp.ExchangeTopic),
			Durable:      durable,
			Arguments:    exchangeArgs,
		},
		Queue: wamqp.QueueConfig{
			GenerateName: wamqp.GenerateQueueNameConstant(r.queue),
			Durable:      durable,
			AutoDelete:   t.AutoDelete,
			Exclusive:    t.Exclusive,
			Arguments:    args,
		},
		QueueBind: wamqp.QueueBindConfig{Arguments: bindingArgs},
		Publish: wamqp.PublishConfig{
			GenerateRoutingKey: func(string) string { return r.publishKey },
			Mandatory:          true,
			ConfirmDelivery:    true,
		},
		Consume:         wamqp.ConsumeConfig{Qos: wamqp.QosConfig{PrefetchCount: r.prefetch}},
		TopologyBuilder: r.topology,
	}
	return r, nil
}

// isSingleActive reports whether the broker delivers to one consumer of the queue at a time. Other
// consumers then wait on standby.
func (r *route) isSingleActive() bool {
	single, _ := r.config.Queue.Arguments["x-single-active-consumer"].(bool)
	return single
}

func publishKey(t TopicConfig, name string, r *route) string {
	switch {
	case t.PublishRoutingKey != "":
		return t.PublishRoutingKey
	case r.exchange == amqp.DefaultExchange:
		return r.queue
	case len(t.RoutingKey) == 1 && !strings.ContainsAny(t.RoutingKey[0], "*#"):
		return t.RoutingKey[0]
	default:
		return name
	}
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// amqpTable turns TOML values into AMQP values. It never returns a nil table without an error.
func amqpTable(from map[string]any) (amqp.Table, error) {
	to := make(amqp.Table, len(from)+2)
	for key, value := range from {
		v, err := amqpValue(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if len(key) > maxShortString {
			return nil, fmt.Errorf("%s: the name is longer than %d bytes", key, maxShortString)
		}
		to[key] = v
	}
	return to, nil
}

func amqpValue(value any) (any, error) {
	switch v := value.(type) {
	case bool, string, float64, int64, time.Time:
		return v, nil
	case int:
		return int64(v), nil
	case map[string]any:
		return amqpTable(v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = amqpValue(v[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	default:
		return nil, fmt.Errorf("AMQP has no type for %T", value)
	}
}
