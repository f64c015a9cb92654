package amqp

import (
	"context"
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
	// ch is a channel on the connection on. They belong to run.
	ch *amqp.Channel
	on *session
}

type answer struct {
	key        string
	publishing amqp.Publishing
	// until is how long it waits for a connection.
	until time.Time
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
	case a.todo <- answer{key: q.replyTo, publishing: publishing, until: time.Now().Add(answerPatience)}:
	default:
		a.count("dropped")
	}
}

func (a *answers) count(outcome string) { a.t.metrics.replies.WithLabelValues(outcome).Inc() }

// run sends until ctx ends.
func (a *answers) run(ctx context.Context) {
	for {
		select {
		case next := <-a.todo:
			a.send(ctx, next)
		case <-ctx.Done():
			return
		}
	}
}

func (a *answers) send(ctx context.Context, next answer) {
	ctx, cancel := context.WithDeadline(ctx, next.until)
	defer cancel()
	ch, err := a.channel(ctx)
	switch {
	case ctx.Err() != nil:
		a.count("dropped")
	case err != nil, ch.Publish(amqp.DefaultExchange, next.key, false, false, next.publishing) != nil:
		a.count("failed")
	default:
		a.count("sent")
	}
}

// channel returns a channel as soon as there is a connection that the broker doesn't block.
func (a *answers) channel(ctx context.Context) (*amqp.Channel, error) {
	for {
		s, blocked, changed, _ := a.t.publisher.state()
		if s != nil && blocked == "" {
			if a.on == s && !a.ch.IsClosed() {
				return a.ch, nil
			}
			ch, err := s.conn.Channel()
			if err == nil {
				a.ch, a.on = ch, s
				return ch, nil
			}
			if !s.lost() {
				return nil, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
