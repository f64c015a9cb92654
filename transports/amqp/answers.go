package amqp

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

const (
	// answerPatience is how long after its ack a message's outcome is waited for, and how long its copy waits for a connection.
	answerPatience = time.Minute
	// answerBuffer is how many copies may wait for the connection before further ones are dropped.
	answerBuffer = 256
)

// answers sends copies of results to the reply_to of the messages that caused them: one attempt each, on a channel
// without confirms that nothing else depends on. A copy waits up to answerPatience for a connection.
type answers struct {
	t    *transport
	todo chan answer
}

type answer struct {
	key        string
	publishing amqp.Publishing
}

func newAnswers(t *transport) *answers {
	return &answers{t: t, todo: make(chan answer, answerBuffer)}
}

// question is what a message with a reply_to waits for.
type question struct {
	replyTo, correlationID string
	reply                  *transports.Reply
}

// expect sends the copy once the outcome of an acked message is known.
func (a *answers) expect(q *question) {
	a.t.goes(func() {
		timeout := time.NewTimer(answerPatience)
		defer timeout.Stop()
		a.await(q, timeout.C)
	})
}

// await sends the copy once the outcome is known, unless that takes too long.
func (a *answers) await(q *question, late <-chan time.Time) {
	select {
	case <-q.reply.Done():
		a.take(q)
	case <-late:
	case <-a.t.closing.Done():
	}
}

// Answer implements transports.Answerer.
func (t *transport) Answer(msg *message.Message) {
	address := msg.Metadata[transports.ReplyTo]
	if address == "" {
		return
	}
	q := &question{replyTo: address, correlationID: msg.Metadata[transports.CorrelationID], reply: transports.NewReply(0)}
	msg.SetContext(transports.WithReply(msg.Context(), q.reply))
	t.goes(func() { t.answers.await(q, nil) })
}

// take puts the first produced message in line. A message that carries the same reply_to is the question on its way
// to somebody else, who will answer it.
func (a *answers) take(q *question) {
	produced := q.reply.Outcome().Messages
	if len(produced) == 0 || produced[0].Metadata[transports.ReplyTo] == q.replyTo {
		return
	}
	publishing, err := a.t.marshaler.Marshal(produced[0])
	if err != nil {
		a.count("failed")
		return
	}
	if q.correlationID != "" {
		publishing.CorrelationId = q.correlationID
	}
	publishing.DeliveryMode = amqp.Transient
	select {
	case a.todo <- answer{key: q.replyTo, publishing: publishing}:
	default:
		a.count("dropped")
	}
}

func (a *answers) count(outcome string) { a.t.metrics.replies.WithLabelValues(outcome).Inc() }

// run sends until ctx ends.
func (a *answers) run(ctx context.Context) {
	var ch *amqp.Channel
	var on *session
	for {
		var next answer
		select {
		case next = <-a.todo:
		case <-ctx.Done():
			return
		}
		s, err := a.connection(ctx)
		if err != nil {
			a.count("dropped")
			continue
		}
		if ch == nil || on != s || ch.IsClosed() {
			if ch, err = s.conn.Channel(); err != nil {
				ch = nil
				a.count("failed")
				continue
			}
			on = s
		}
		if err := ch.Publish(amqp.DefaultExchange, next.key, false, false, next.publishing); err != nil {
			a.count("failed")
			continue
		}
		a.count("sent")
	}
}

// connection returns the connection for publishing as soon as there is one that the broker doesn't block.
func (a *answers) connection(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	s, err := a.t.publisher.wait(ctx)
	if err == nil {
		if _, blocked, _, _ := a.t.publisher.state(); blocked != "" {
			err = errors.New(blocked)
		}
	}
	return s, err
}
