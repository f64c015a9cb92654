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

// Two hosts that consume from one queue each get a part of the messages, and know nothing of each
// other's devices. The broker allows it, and says only how many consumers a queue has. So the host
// compares that with how many it has itself.
//
// Others are reported if two looks in a row find them. A lost connection may leave a consumer of
// this host's at the broker, until the broker misses its heartbeats: for that time nobody is
// reported anew. A report ends with the first look that finds nobody.
const (
	// lookInterval is the time between two looks.
	lookInterval = 5 * time.Second
	// ghostHeartbeats is how many intervals of heartbeats the broker may take to give up a
	// connection that says nothing any more. RabbitMQ takes two, and looks once an interval.
	ghostHeartbeats = 3
)

// sharing knows who consumes from the queues of pipelines that share them with nobody.
type sharing struct {
	log      *slog.Logger
	interval time.Duration
	// ghosts is how long a lost consumer may be there.
	ghostTime time.Duration

	mu     sync.Mutex
	queues map[string]*sharedQueue
}

// queueUse is one queue.
type sharedQueue struct {
	// own is how many consumers this host may have there.
	own int
	// lost is when a connection with one was lost.
	lost time.Time
	// others is how many there were at the last look, and looks how many looks in a row found some.
	others, looks int
	// since is when they were reported; zero: they aren't.
	since time.Time
	// refused is the connection on which the broker doesn't let the host look.
	refused *amqp.Connection
}

func newSharing(log *slog.Logger, heartbeat time.Duration) *sharing {
	return &sharing{log: log, interval: lookInterval, ghostTime: ghostHeartbeats * heartbeat, queues: map[string]*sharedQueue{}}
}

// begin says that this host is about to consume from a queue.
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

// end says that it doesn't any more; lost that the broker may not know it yet.
func (s *sharing) removeConsumer(queue string, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.queues[queue]
	u.own--
	if lost {
		u.lost = time.Now()
	}
}

// look asks the broker about each queue, now and then, until ctx ends.
func (t *transport) watchQueues(ctx context.Context) {
	s := t.sharing
	pauses := backoff.New(s.interval, s.interval)
	for backoff.Sleep(ctx, pauses.NextBackOff()) {
		session, _, _, err := t.consumer.currentState()
		if err != nil || t.taking.Err() != nil { // a host that stops makes room for the next one
			continue
		}
		s.checkQueues(session.conn)
	}
}

// lookAt looks at each queue once.
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
			// Consumers may have come and gone during the look.
			s.recordOthers(queue, u, found.Consumers-max(before, u.own))
		case conn.IsClosed():
		default: // nothing is known of a queue that is gone, or that the host may not look at
			s.recordOthers(queue, u, 0)
			if !isNotFound(err) {
				u.refused = conn
			}
		}
		s.mu.Unlock()
	}
}

// count takes how many consumers of others a look found. The lock is held.
func (s *sharing) recordOthers(queue string, u *sharedQueue, others int) {
	u.others = max(others, 0)
	switch {
	case others <= 0:
		u.looks = 0
		if !u.since.IsZero() {
			s.log.Info("nobody else consumes from the queue any more", "queue", queue, "after", time.Since(u.since).Round(time.Millisecond))
			u.since = time.Time{}
		}
	case time.Since(u.lost) < s.ghostTime:
		u.looks = 0
	default:
		if u.looks++; u.looks == 2 && u.since.IsZero() {
			u.since = time.Now()
			s.log.Error("somebody else consumes from a queue of this host", "queue", queue, "err", errShared(queue, others))
		}
	}
}

// errShared says what is wrong with a queue that others consume from.
func errShared(queue string, others int) error {
	consumers := "consumers that aren't"
	if others == 1 {
		consumers = "consumer that isn't"
	}
	return fmt.Errorf("queue %q has %d %s this host's: each gets only a part of the messages", queue, others, consumers)
}

// nextShared is what to do about it.
const nextStepShared = "end the other host, give each a queue of its own, or say competing = true if they share it on purpose"

// health is one part a queue.
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
