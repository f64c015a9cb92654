package amqp

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// trouble keeps what is wrong with topics, and says each cause once, however many users a topic has.
type trouble struct {
	log *slog.Logger

	mu sync.Mutex
	// state is what each user of a topic has met, by topic and user: a subscription, a declaration or the upkeep.
	state map[string]map[any]error
}

func newTrouble(log *slog.Logger) *trouble {
	return &trouble{log: log, state: map[string]map[any]error{}}
}

// fails records why a topic doesn't work.
func (t *trouble) fails(topic string, user any, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := t.state[topic]
	if users == nil {
		users = map[any]error{}
		t.state[topic] = users
	}
	known := false
	for _, old := range users {
		known = known || old != nil && old.Error() == err.Error()
	}
	if !known {
		t.log.Warn("topic doesn't work, trying again", "topic", topic, "err", err)
	}
	users[user] = err
}

// works records that a topic works for a user.
func (t *trouble) works(topic string, user any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := t.state[topic]
	if users == nil {
		users = map[any]error{}
		t.state[topic] = users
	}
	failed := users[user] != nil
	users[user] = nil
	if failed && worst(users) == nil {
		t.log.Info("topic works again", "topic", topic)
	}
}

// forget removes a user that needs the topic no more.
func (t *trouble) forget(topic string, user any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.state[topic], user)
	if len(t.state[topic]) == 0 {
		delete(t.state, topic)
	}
}

// health is one part a topic.
func (t *trouble) health() []transports.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := make([]transports.Health, 0, len(t.state))
	for topic, users := range t.state {
		parts = append(parts, transports.Health{Part: "topic " + topic, Err: worst(users)})
	}
	slices.SortFunc(parts, func(a, b transports.Health) int { return strings.Compare(a.Part, b.Part) })
	return parts
}

// worst is the first error in the order of their texts, so that it is the same each time.
func worst(users map[any]error) (err error) {
	for _, e := range users {
		if e != nil && (err == nil || e.Error() < err.Error()) {
			err = e
		}
	}
	return err
}
