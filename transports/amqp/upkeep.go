package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
)

// checkInterval is the time between two checks of the topics in use. The plugin's page names it.
const checkInterval = time.Minute

// topicUse is what a topic in use needs in the broker.
type topicUse struct {
	route *route
	// queue is empty if the check doesn't declare it.
	queue    string
	consumed bool
}

// restoreTopics declares the topics in use at intervals until ctx ends. A queue without its
// exchange or binding receives nothing, and a broker doesn't report that one was deleted.
// restoreTopics uses the consumer connection, because the broker never blocks it.
func (t *transport) restoreTopics(ctx context.Context) {
	looked := map[string]bool{}
	pauses := backoff.New(t.checkInterval, t.checkInterval)
	for backoff.Sleep(ctx, pauses.NextBackOff()) {
		s, _, _, err := t.consumer.currentState()
		if _, blocked, _, _ := t.publisher.currentState(); err != nil || blocked != "" {
			continue
		}
		uses := t.topicsInUse()
		for topic := range looked {
			if !slices.ContainsFunc(uses, func(u topicUse) bool { return u.route.topic == topic }) {
				t.topics.forget(topic, t)
				delete(looked, topic)
			}
		}
		for _, u := range uses {
			if !u.route.declare {
				continue
			}
			looked[u.route.topic] = true
			if err := t.restoreTopic(s.conn, u); !s.isLost() && ctx.Err() == nil {
				t.topics.report(u.route.topic, t, err)
			}
		}
	}
}

// restoreTopic declares a topic, and logs if an exchange or queue was missing.
func (t *transport) restoreTopic(conn *amqp.Connection, u topicUse) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("opening a channel: %w", plainError(err))
	}
	defer ch.Close()
	absent := func(err error) bool {
		e, ok := errors.AsType[*amqp.Error](err)
		return ok && e != nil && e.Code == amqp.NotFound
	}
	r := u.route
	e, q := r.config.Exchange, r.config.Queue
	if r.exchange != amqp.DefaultExchange {
		err = ch.ExchangeDeclarePassive(r.exchange, e.Type, e.Durable, e.AutoDeleted, e.Internal, false, e.Arguments)
	}
	switch {
	case absent(err):
		t.logDeleted("exchange", r.exchange)
	case u.consumed || u.queue == "":
		// The broker cancels the consumer of a deleted queue, so there is nothing to check.
	default:
		if _, err := ch.QueueDeclarePassive(u.queue, q.Durable, q.AutoDelete, q.Exclusive, false, q.Arguments); absent(err) {
			t.logDeleted("queue", u.queue)
		}
	}
	return r.declareTopology(conn, u.queue)
}

// logDeleted logs that an exchange or queue is missing that existed before.
func (t *transport) logDeleted(what, name string) {
	t.env.Logger.Warn("the "+what+" was deleted, declaring it again", what, name)
}

// topicsInUse returns the topics in use, sorted by name.
func (t *transport) topicsInUse() []topicUse {
	var uses []topicUse
	t.mu.Lock()
	for r := range t.consumed {
		uses = append(uses, topicUse{route: r, queue: r.queue, consumed: true})
	}
	t.mu.Unlock()
	for _, d := range t.outbox.declarations() {
		if slices.ContainsFunc(uses, func(u topicUse) bool { return u.route == d.route }) {
			continue
		}
		u := topicUse{route: d.route, queue: d.queueToDeclare()}
		// The broker deletes such a queue after its last consumer, on purpose.
		if d.route.config.Queue.AutoDelete {
			u.queue = ""
		}
		uses = append(uses, u)
	}
	slices.SortFunc(uses, func(a, b topicUse) int { return cmp.Compare(a.route.topic, b.route.topic) })
	return uses
}
