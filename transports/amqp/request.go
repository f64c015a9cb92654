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

// requests owns the host's reply queue. The queue is exclusive, and the broker chooses its name.
// Each connection has a new one.
type requests struct {
	t *transport

	mu      sync.Mutex
	started bool
	queue   string
	changed chan struct{}
	waiting map[string]chan *message.Message
}

// newRequests returns the requests of a transport. The first Expect declares the reply queue.
func newRequests(t *transport) *requests {
	return &requests{t: t, changed: make(chan struct{}), waiting: map[string]chan *message.Message{}}
}

// Expect implements transports.Answerer. If the connection is lost, the reply queue is lost too,
// and the channel of the answer is closed without an answer.
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

// forgetRequest stops waiting for an answer.
func (q *requests) forgetRequest(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, id)
}

// run declares a reply queue on each connection, until ctx ends.
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

// serveReplies declares a reply queue and passes answers on until the queue is lost.
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

// setQueue sets the name of the reply queue. An empty name says that the queue is lost, and ends
// all requests that wait for an answer.
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
