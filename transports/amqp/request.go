package amqp

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

// requests owns the host's reply queue: exclusive, named by the broker, and another one after each connection.
type requests struct {
	t *transport

	mu      sync.Mutex
	started bool
	queue   string
	changed chan struct{}
	waiting map[string]chan *message.Message
}

func newRequests(t *transport) *requests {
	return &requests{t: t, changed: make(chan struct{}), waiting: map[string]chan *message.Message{}}
}

// Expect implements transports.Answerer. The answer's channel closes without one if the connection is lost, as the reply queue
// goes with it.
func (t *transport) Expect(ctx context.Context) (replyTo, correlationID string, _ <-chan *message.Message, cancel func(), _ error) {
	q := t.requests
	q.mu.Lock()
	if !q.started {
		q.started = t.startGoroutine(func() { q.run(t.closing) })
	}
	q.mu.Unlock()
	for {
		q.mu.Lock()
		queue, changed := q.queue, q.changed
		if queue != "" {
			id := uuid.NewString()
			answer := make(chan *message.Message, 1)
			q.waiting[id] = answer
			q.mu.Unlock()
			return queue, id, answer, func() { q.forgetRequest(id) }, nil
		}
		q.mu.Unlock()
		select {
		case <-changed:
		case <-t.closing.Done():
			return "", "", nil, nil, fmt.Errorf("waiting for a reply queue: %w", transports.ErrClosed)
		case <-ctx.Done():
			return "", "", nil, nil, fmt.Errorf("waiting for a reply queue: %w", context.Cause(ctx))
		}
	}
}

func (q *requests) forgetRequest(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
}

func (q *requests) run(ctx context.Context) {
	queue := outage.New(q.t.env.Logger, "the reply queue")
	pauses := backoff.New(q.t.config.Reconnect.MaxInterval, q.t.config.Reconnect.MaxInterval)
	for {
		s, err := q.t.consumer.awaitSession(ctx)
		if err != nil {
			return
		}
		err = q.serveReplies(s.conn, queue)
		if ctx.Err() != nil {
			return
		}
		if !s.isLost() {
			queue.Report(err)
			if !backoff.Sleep(ctx, pauses.NextBackOff()) {
				return
			}
		}
	}
}

// serve makes a reply queue and hands out what comes until it is lost.
func (q *requests) serveReplies(conn *amqp.Connection, state *outage.Outage) error {
	ch, err := conn.Channel()
	if err != nil {
		return fmt.Errorf("opening a channel: %w", plainError(err))
	}
	defer ch.Close()
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return fmt.Errorf("declaring a reply queue: %w", plainError(err))
	}
	deliveries, err := ch.Consume(queue.Name, "", true, true, false, false, nil)
	if err != nil {
		return fmt.Errorf("consuming from the reply queue: %w", plainError(err))
	}
	state.Report(nil)
	q.setQueue(queue.Name)
	defer q.setQueue("")
	for d := range deliveries {
		q.mu.Lock()
		answer := q.waiting[d.CorrelationId]
		delete(q.waiting, d.CorrelationId)
		q.mu.Unlock()
		if answer != nil {
			answer <- q.t.marshaler.toMessage(&d)
		}
	}
	return errLost
}

// change names the new queue. Without one nobody who waits gets an answer any more.
func (q *requests) setQueue(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = name
	if name == "" {
		for _, answer := range q.waiting {
			close(answer)
		}
		clear(q.waiting)
	}
	close(q.changed)
	q.changed = make(chan struct{})
}
