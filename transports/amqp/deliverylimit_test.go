package amqp

import (
	"context"
	"errors"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/testenv"
)

func TestTheDeliveryLimitThatIsKnown(t *testing.T) {
	no := false
	for name, c := range map[string]struct {
		topic TopicConfig
		major int
		want  int
		arg   any // what the queue is declared with
	}{
		"a limit of the topic's":            {TopicConfig{QueueType: quorum, DeliveryLimit: 7}, 3, 7, int64(7)},
		"RabbitMQ 3 has none":               {TopicConfig{QueueType: quorum}, 3, unlimited, nil},
		"RabbitMQ 4 has one":                {TopicConfig{QueueType: quorum}, 4, defaultLimit, nil},
		"none in RabbitMQ 4":                {TopicConfig{QueueType: quorum, DeliveryLimit: unlimited}, 4, unlimited, int64(unlimited)},
		"none in RabbitMQ 3":                {TopicConfig{QueueType: quorum, DeliveryLimit: unlimited}, 3, unlimited, nil},
		"an argument":                       {TopicConfig{QueueType: quorum, Arguments: map[string]any{limitArg: int64(5)}}, 4, 5, int64(5)},
		"a queue of the host's default":     {TopicConfig{}, 4, 0, nil},
		"a classic queue":                   {TopicConfig{QueueType: classic}, 4, 0, nil},
		"a queue that somebody else makes":  {TopicConfig{QueueType: quorum, Declare: &no}, 4, 0, nil},
		"an argument of -1 in RabbitMQ 4":   {TopicConfig{QueueType: quorum, Arguments: map[string]any{limitArg: int64(-1)}}, 4, unlimited, int64(unlimited)},
		"any negative argument":             {TopicConfig{QueueType: quorum, Arguments: map[string]any{limitArg: int64(-7)}}, 4, unlimited, int64(-7)},
		"none, whatever an argument says":   {TopicConfig{QueueType: quorum, DeliveryLimit: unlimited, Arguments: map[string]any{limitArg: int64(-7)}}, 3, unlimited, nil},
		"an argument of no declaration":     {TopicConfig{QueueType: quorum, Declare: &no, Arguments: map[string]any{limitArg: int64(-1)}}, 3, 0, int64(-1)},
		"a broker that says no version":     {TopicConfig{QueueType: quorum}, 0, unlimited, nil},
		"an argument beside another limit?": {TopicConfig{QueueType: quorum, DeliveryLimit: 3, Arguments: map[string]any{"x-max-length": int64(5)}}, 4, 3, int64(3)},
	} {
		t.Run(name, func(t *testing.T) {
			config := defaults
			config.Topics = map[string]TopicConfig{"t": c.topic}
			r, err := config.route("t")
			if err != nil {
				t.Fatal(err)
			}
			if got := r.deliveryLimit(c.major); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
			if args, err := r.queueArguments(c.major); err != nil || args[limitArg] != c.arg {
				t.Errorf("declared with %v, %v", args[limitArg], err)
			}
		})
	}
}

// RabbitMQ before 4 uses a negative limit as a number.
func TestAnArgumentThatLosesMessagesIsRefused(t *testing.T) {
	for _, limit := range []int64{-1, -7} {
		config := defaults
		config.Topics = map[string]TopicConfig{"t": {QueueType: quorum, Arguments: map[string]any{limitArg: limit}}}
		r, err := config.route("t")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.queueArguments(3); !errors.Is(err, errUnlimited) {
			t.Errorf("%d: %v", limit, err)
		}
	}
}

func TestTheHostWarnsBeforeADeliveryLimitIsReached(t *testing.T) {
	t.Parallel()
	r := start(t, config(testenv.Broker(t).VHost(t), topics(map[string]TopicConfig{"q": {QueueType: quorum, DeliveryLimit: 3}})))
	if err := r.publish("q", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	again := func() {
		ctx, cancel := context.WithCancel(t.Context())
		out := r.subscribe(ctx, "q")
		next(t, out).Nack()
		cancel()
		closed(t, out)
	}
	again()
	r.logs(1, "the broker drops or dead-letters a message that it redelivers too often", "queue=q delivery_limit=3")
	again()
	r.logs(0, "a message was redelivered many times")
	again()
	r.logs(1, "a message was redelivered many times", "delivery_limit=3 topic=q", "redeliveries=2")
}

// Without a limit in the configuration, the host can't know how many redeliveries are too many.
func TestTheHostWarnsOfManyDeliveriesWithoutAKnownLimit(t *testing.T) {
	t.Parallel()
	no := false
	url := testenv.Broker(t).VHost(t)
	peer := dial(t, url)
	if _, err := peer.ch.QueueDeclare("q", true, false, false, false, amqp.Table{amqp.QueueTypeArg: quorum}); err != nil {
		t.Fatal(err)
	}
	r := start(t, config(url, topics(map[string]TopicConfig{"q": {Queue: "q", Exchange: defaultExchange, QueueType: quorum, Declare: &no}})))
	if err := r.publish("q", outgoing("one")); err != nil {
		t.Fatal(err)
	}
	for range warnRedeliveries + 1 {
		ctx, cancel := context.WithCancel(t.Context())
		out := r.subscribe(ctx, "q")
		next(t, out).Nack()
		cancel()
		closed(t, out)
	}
	r.logs(1, "a message was redelivered many times", "redeliveries=10")
	r.logs(0, "the broker drops or dead-letters a message that it redelivers too often")
}
