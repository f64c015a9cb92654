package amqp

import (
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A quorum queue counts the redeliveries of each message. Beyond its delivery limit it drops or
// dead-letters the message. Each lost connection, stop and ack_deadline counts.

const (
	limitArg    = "x-delivery-limit"
	countHeader = "x-delivery-count"
	// unlimited is the limit of a queue that has none.
	unlimited = -1
	// defaultLimit is the limit of queues without one of their own, in RabbitMQ from unlimitedFrom
	// on.
	defaultLimit = 20
	// unlimitedFrom is the first major version in which a negative limit means none. With one
	// RabbitMQ 3.10 drops each message at its first redelivery (measured).
	unlimitedFrom = 4
	// suspicious is how many redeliveries are worth a warning if the limit isn't known: a policy
	// may have set one.
	warnRedeliveries = 10
	// warnInterval is how much time passes between two such warnings about a topic.
	warnInterval = time.Minute
)

// majorVersion returns the broker's, 0 if it doesn't say.
func majorVersion(conn *amqp.Connection) int {
	version, _ := conn.Properties["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(major)
	return n
}

// errUnlimited is about a limit that RabbitMQ before 4 understands differently.
var errUnlimited = errors.New("arguments: with a negative x-delivery-limit RabbitMQ before 4 drops each message at its first redelivery; use delivery_limit = -1 instead, or leave it out")

// queueArguments returns those that a queue is declared with.
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

// limitIn returns the limit in a queue's arguments, 0 if there is none. All negative limits mean
// the same. Integers from TOML are int64.
func limitIn(args amqp.Table) int {
	n, _ := args[limitArg].(int64)
	return int(max(n, unlimited))
}

// deliveryLimit returns how often the broker redelivers a message of the queue: unlimited if there
// is no limit, 0 if the host can't know it.
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

// learnLimit finds out the limit when a consumer begins, and warns of it once.
func (s *subscription) learnLimit(major int) {
	first := s.limit == 0
	s.limit = s.route.deliveryLimit(major)
	if first && s.limit > 0 {
		s.t.env.Logger.Warn("the broker drops or dead-letters a message that it delivers too often, as in a long outage; delivery_limit = -1 of the topic turns that off",
			"topic", s.route.topic, "queue", s.route.queue, "delivery_limit", s.limit)
	}
}

// checkCount warns of a message that the broker may drop or dead-letter soon.
func (s *subscription) checkCount(d *amqp.Delivery) {
	count, ok := d.Headers[countHeader].(int64)
	switch {
	case !ok || s.limit == unlimited || time.Since(s.warned) < warnInterval:
		return
	case s.limit == 0 && count < warnRedeliveries, s.limit > 0 && count < int64(s.limit+1)/2:
		return
	}
	limit := "not known"
	if s.limit > 0 {
		limit = strconv.Itoa(s.limit)
	}
	s.warned = time.Now()
	s.t.env.Logger.Warn("a message was delivered many times; beyond the limit the broker drops or dead-letters it",
		"topic", s.route.topic, "queue", s.route.queue, "message_id", d.MessageId, "again", count, "delivery_limit", limit)
}
