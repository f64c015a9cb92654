package amqp

import (
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/pentrough/pentrough/transports"
)

// trouble keeps what is wrong with topics, and says it once.
type trouble struct {
	log *slog.Logger

	mu    sync.Mutex
	state map[use]error
}

// use is a topic on one of the connections.
type use struct{ topic, role string }

func newTrouble(log *slog.Logger) *trouble {
	return &trouble{log: log, state: map[use]error{}}
}

// fails records why a topic doesn't work.
func (t *trouble) fails(topic, role string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := use{topic, role}
	if old := t.state[u]; old == nil || old.Error() != err.Error() {
		t.log.Warn("topic doesn't work, trying again", "topic", topic, "connection", role, "err", err)
	}
	t.state[u] = err
}

// works records that a topic works.
func (t *trouble) works(topic, role string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := use{topic, role}
	if t.state[u] != nil {
		t.log.Info("topic works again", "topic", topic, "connection", role)
	}
	t.state[u] = nil
}

// forget removes a topic that isn't used any more.
func (t *trouble) forget(topic, role string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.state, use{topic, role})
}

// health is one part a topic; trouble on either connection is the topic's.
func (t *trouble) health() []transports.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	worst := map[string]error{}
	for u, err := range t.state {
		if old, ok := worst[u.topic]; !ok || old == nil {
			worst[u.topic] = err
		}
	}
	parts := make([]transports.Health, 0, len(worst))
	for topic, err := range worst {
		parts = append(parts, transports.Health{Part: "topic " + topic, Err: err})
	}
	slices.SortFunc(parts, func(a, b transports.Health) int { return strings.Compare(a.Part, b.Part) })
	return parts
}
