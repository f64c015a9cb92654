package amqp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// Two hosts that consume from one queue each receive a part of the messages, and neither knows the
// other's devices. The broker allows that. It tells a client only how many consumers a queue has,
// so the host compares that number with its own.
//
// The host reports other consumers when two checks in a row find some. The report ends with the
// first check that finds none. After a lost connection the broker may keep a consumer of this host
// until it misses its heartbeats. For that time the host reports no other consumers.

const (
	// queueCheckInterval is the time between two checks.
	queueCheckInterval = 5 * time.Second
	// ghostHeartbeats is how many heartbeat intervals the broker may take to drop a silent
	// connection. RabbitMQ drops it after two, and checks once an interval.
	ghostHeartbeats = 3
)

// sharing watches the queues of pipelines that don't share them.
type sharing struct {
	log      *slog.Logger
	interval time.Duration
	// ghostTime is how long the broker may keep a consumer of a lost connection.
	ghostTime time.Duration

	mu     sync.Mutex
	queues map[string]*sharedQueue
}

// sharedQueue is the state of one queue.
type sharedQueue struct {
	// own is how many consumers this host may have on the queue.
	own int
	// lost is when the host lost a connection with a consumer of the queue.
	lost time.Time
	// others is how many other consumers the last check found. checksFound is how many checks in a
	// row found some.
	others, checksFound int
	// since is when the host reported them, or zero.
	since time.Time
	// refused is the connection on which the broker refused a check.
	refused *amqp.Connection
}

// newSharing returns a sharing without queues.
func newSharing(log *slog.Logger, heartbeat time.Duration) *sharing {
	return &sharing{log: log, interval: queueCheckInterval, ghostTime: ghostHeartbeats * heartbeat, queues: map[string]*sharedQueue{}}
}

// addConsumer records that this host is about to consume from a queue.
func (s *sharing) addConsumer(queue string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.queues[queue]
	if u == nil {
		u = &sharedQueue{}
		s.queues[queue] = u
	}
	u.own++
}

// removeConsumer records that a consumer of this host has ended. lost says that the broker may not
// know that yet.
func (s *sharing) removeConsumer(queue string, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.queues[queue]
	u.own--
	if lost {
		u.lost = time.Now()
	}
}

// watchQueues checks each queue at intervals until ctx ends.
func (t *transport) watchQueues(ctx context.Context) {
	s := t.sharing
	pauses := backoff.New(s.interval, s.interval)
	for backoff.Sleep(ctx, pauses.NextBackOff()) {
		session, _, _, err := t.consumer.currentState()
		if err != nil || t.taking.Err() != nil { // a host that stops expects its successor
			continue
		}
		s.checkQueues(session.conn)
	}
}

// checkQueues checks each queue once.
func (s *sharing) checkQueues(conn *amqp.Connection) {
	s.mu.Lock()
	queues := slices.Sorted(maps.Keys(s.queues))
	s.mu.Unlock()
	for _, queue := range queues {
		s.mu.Lock()
		before, refused := s.queues[queue].own, s.queues[queue].refused
		s.mu.Unlock()
		if refused == conn {
			continue
		}
		var found amqp.Queue
		err := onChannel(conn, func(ch *amqp.Channel) (err error) {
			found, err = ch.QueueDeclarePassive(queue, false, false, false, false, nil)
			return err
		})
		s.mu.Lock()
		u := s.queues[queue]
		switch {
		case err == nil:
			// This host's consumers may have changed during the check.
			s.recordOthers(queue, u, found.Consumers-max(before, u.own))
		case conn.IsClosed():
		default: // the queue doesn't exist, or the host may not check it
			s.recordOthers(queue, u, 0)
			if !isNotFound(err) {
				u.refused = conn
			}
		}
		s.mu.Unlock()
	}
}

// recordOthers records how many other consumers a check found. The caller has locked mu.
func (s *sharing) recordOthers(queue string, u *sharedQueue, others int) {
	u.others = max(others, 0)
	switch {
	case others <= 0:
		u.checksFound = 0
		if !u.since.IsZero() {
			s.log.Info("no others consume from the queue any more", "queue", queue, "after", time.Since(u.since).Round(time.Millisecond))
			u.since = time.Time{}
		}
	case time.Since(u.lost) < s.ghostTime:
		u.checksFound = 0
	default:
		if u.checksFound++; u.checksFound == 2 && u.since.IsZero() {
			u.since = time.Now()
			s.log.Error("others consume from a queue of this host", "queue", queue, "err", errShared(queue, others))
		}
	}
}

// errShared returns the error for a queue with other consumers.
func errShared(queue string, others int) error {
	consumers := "consumers that aren't"
	if others == 1 {
		consumers = "consumer that isn't"
	}
	return fmt.Errorf("queue %q has %d %s this host's: each receives only a part of the messages", queue, others, consumers)
}

// nextStepShared says how to mend that error.
const nextStepShared = "stop the others, give each host a queue of its own, or set competing = true if they share the queue on purpose"

// health returns the health of each queue.
func (s *sharing) health() []transports.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []transports.Health
	for _, queue := range slices.Sorted(maps.Keys(s.queues)) {
		h := transports.Health{Part: queueStream(queue)}
		if u := s.queues[queue]; !u.since.IsZero() {
			h.Err = fmt.Errorf("%w; %s", errShared(queue, u.others), nextStepShared)
		}
		parts = append(parts, h)
	}
	return parts
}
