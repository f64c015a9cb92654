package amqp

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A quorum queue counts how often it redelivers each message. Beyond its delivery limit it drops
// or dead-letters the message. Each lost connection, each stop and each ack_deadline counts.
const (
	limitArg    = "x-delivery-limit"
	countHeader = "x-delivery-count"
	// unlimited is the limit of a queue without one.
	unlimited = -1
	// defaultLimit is the limit of quorum queues that set none, since RabbitMQ 4.
	defaultLimit = 20
	// unlimitedFrom is the first major version in which a negative limit means no limit. RabbitMQ
	// 3.10 drops each message at its first redelivery if the limit is negative (measured).
	unlimitedFrom = 4
	// warnRedeliveries is the number of redeliveries at which the host warns if it doesn't know
	// the limit. A policy may have set one.
	warnRedeliveries = 10
	// warnInterval is the shortest time between two such warnings about a topic.
	warnInterval = time.Minute
)

// majorVersion returns the broker's major version, or 0 if the broker doesn't send it.
func majorVersion(conn *amqp.Connection) int {
	version, _ := conn.Properties["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(major)
	return n
}

// errUnlimited says that RabbitMQ before 4 reads a negative limit differently.
var errUnlimited = errors.New("arguments: with a negative x-delivery-limit RabbitMQ before 4 drops each message at its first redelivery; use delivery_limit = -1 instead, or leave it out")

// queueArguments returns the arguments to declare the queue with.
func (r *route) queueArguments(major int) (amqp.Table, error) {
	args := r.config.Queue.Arguments
	switch {
	case r.noLimit && major >= unlimitedFrom:
		args = maps.Clone(args)
		args[limitArg] = int64(unlimited)
	case r.declare && major < unlimitedFrom && limitIn(args) == unlimited:
		return nil, errUnlimited
	}
	return args, nil
}

// limitIn returns the limit in a queue's arguments, or 0 if they have none. All negative limits
// mean the same. TOML integers are int64.
func limitIn(args amqp.Table) int {
	n, _ := args[limitArg].(int64)
	return int(max(n, unlimited))
}

// deliveryLimit returns how often the broker redelivers a message of the queue. It returns
// unlimited if there is no limit, and 0 if the host can't know the limit.
func (r *route) deliveryLimit(major int) int {
	args, err := r.queueArguments(major)
	switch limit := limitIn(args); {
	case err != nil || !r.declare:
		return 0
	case limit != 0:
		return limit
	case args[amqp.QueueTypeArg] != quorum:
		return 0
	case major >= unlimitedFrom:
		return defaultLimit
	default:
		return unlimited
	}
}

// learnLimit sets the limit when a consumer begins, and logs a limit once.
func (s *subscription) learnLimit(major int) {
	first := s.limit == 0
	s.limit = s.route.deliveryLimit(major)
	if first && s.limit > 0 {
		s.t.env.Logger.Warn("the broker drops or dead-letters a message that it redelivers too often, as in a long outage; set the topic's delivery_limit = -1 to prevent that",
			"topic", s.route.topic, "queue", s.route.queue, "delivery_limit", s.limit)
	}
}

// checkCount warns about a message that the broker may soon drop or dead-letter.
func (s *subscription) checkCount(d *amqp.Delivery) {
	count, ok := d.Headers[countHeader].(int64)
	switch {
	case !ok || s.limit == unlimited || time.Since(s.warned) < warnInterval:
		return
	case s.limit == 0 && count < warnRedeliveries, s.limit > 0 && count < int64(s.limit+1)/2:
		return
	}
	s.warned = time.Now()
	log := s.t.env.Logger
	if s.limit > 0 {
		log = log.With("delivery_limit", s.limit)
	}
	log.Warn("a message was redelivered many times; beyond its queue's delivery limit the broker drops or dead-letters it",
		"topic", s.route.topic, "queue", s.route.queue, "message_id", d.MessageId, "redeliveries", count)
}
