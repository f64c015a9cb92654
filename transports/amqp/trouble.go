package amqp

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

// topicStates keeps the errors of topics. The users of a topic are its subscriptions, its
// declaration and the regular checks (upkeep.go).
type topicStates struct {
	log *slog.Logger

	mu     sync.Mutex
	topics map[string]*outage.Outage
}

// newTopicStates returns topic states without any topic yet.
func newTopicStates(log *slog.Logger) *topicStates {
	return &topicStates{log: log, topics: map[string]*outage.Outage{}}
}

// report records why a topic doesn't work for a user. nil says that it works.
func (t *topicStates) report(topic string, user any, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
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
	if o := t.topics[topic]; o != nil && !o.Forget(user) {
		delete(t.topics, topic)
	}
}

// health returns the health of each topic.
func (t *topicStates) health() []transports.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := make([]transports.Health, 0, len(t.topics))
	for topic, o := range t.topics {
		parts = append(parts, transports.Health{Part: "topic " + topic, Err: o.Err()})
	}
	slices.SortFunc(parts, func(a, b transports.Health) int { return strings.Compare(a.Part, b.Part) })
	return parts
}
