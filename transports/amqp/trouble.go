package amqp

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

// errNotConsumed is why a topic doesn't work right after the start.
var errNotConsumed = errors.New("the host is about to consume from it")

// topicStates keeps the errors of topics. The users of a topic are its subscriptions, its
// declaration and the regular checks (upkeep.go).
type topicStates struct {
	log *slog.Logger

	mu     sync.Mutex
	topics map[string]*outage.Outage
	// expected has the users of which no report has come yet, and their topics.
	expected map[any]string
}

// newTopicStates returns topic states without any topic yet.
func newTopicStates(log *slog.Logger) *topicStates {
	return &topicStates{log: log, topics: map[string]*outage.Outage{}, expected: map[any]string{}}
}

// expect says that a report of a user will come. Until then the topic doesn't work.
func (t *topicStates) expect(topic string, user any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expected[user] = topic
}

// report records why a topic doesn't work for a user. nil says that it works.
func (t *topicStates) report(topic string, user any, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.expected, user)
	o := t.topics[topic]
	if o == nil {
		o = outage.New(t.log.With("topic", topic), "topic")
		t.topics[topic] = o
	}
	o.ReportOf(user, err)
}

// forget removes a user that doesn't use the topic any more.
func (t *topicStates) forget(topic string, user any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.expected, user)
	if o := t.topics[topic]; o != nil && !o.Forget(user) {
		delete(t.topics, topic)
	}
}

// health returns the health of each topic.
func (t *topicStates) health() []transports.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	errs := map[string]error{}
	for _, topic := range t.expected {
		errs[topic] = errNotConsumed
	}
	for topic, o := range t.topics {
		errs[topic] = cmp.Or(o.Err(), errs[topic])
	}
	parts := make([]transports.Health, 0, len(errs))
	for topic, err := range errs {
		parts = append(parts, transports.Health{Part: "topic " + topic, Err: err})
	}
	slices.SortFunc(parts, func(a, b transports.Health) int { return strings.Compare(a.Part, b.Part) })
	return parts
}
