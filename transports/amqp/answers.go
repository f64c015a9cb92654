package amqp

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/transports"
)

const (
	// answerPatience is how long a copy waits for a connection.
	copyWait = time.Minute
	// answerBuffer is how many copies may wait for the connection before further ones are dropped.
	copyBuffer = 256
)

// answers sends copies of results to the reply_to of the messages that caused them: one attempt
// each, on a channel without confirms that nothing else depends on.
type replyCopies struct {
	t       *transport
	allowed replyQueues
	queue   chan replyCopy
	// ch is a channel on the connection on. They belong to run.
	ch      *amqp.Channel
	session *session
	// complaints lets one refusal a minute be logged.
	complaints rate.Sometimes
}

// answer is a result on its way to a reply_to.
type replyCopy struct {
	replyTo, correlationID string
	result                 *message.Message
	// until is how long it waits for a connection.
	until time.Time
}

func newReplyCopies(t *transport) *replyCopies {
	return &replyCopies{t: t, allowed: newReplyQueues(t.config.ReplyTo, t.env.Consumed), queue: make(chan replyCopy, copyBuffer), complaints: rate.Sometimes{Interval: time.Minute}}
}

// Answer implements transports.Answerer: it puts the first produced message in line, unless
// reply_to names a queue that it may not name. A produced message that carries the same reply_to
// is the question on its way to somebody else, who will answer it.
func (t *transport) Answer(metadata message.Metadata, o *transports.Outcome) {
	replyTo := metadata[transports.ReplyTo]
	if replyTo == "" || len(o.Messages) == 0 || o.Messages[0].Metadata[transports.ReplyTo] == replyTo {
		return
	}
	if err := t.answers.allowed.check(replyTo); err != nil {
		t.answers.refuseCopy(metadata, err)
		return
	}
	select {
	case t.answers.queue <- replyCopy{
		replyTo: replyTo, correlationID: metadata[transports.CorrelationID],
		result: o.Messages[0], until: time.Now().Add(copyWait),
	}:
	default:
		t.answers.countCopy("dropped")
	}
}

func (a *replyCopies) countCopy(outcome string) { a.t.metrics.replies.WithLabelValues(outcome).Inc() }

// refuse counts a reply_to that may not be served. Anyone who may publish can cause it, so not
// every one is logged.
func (a *replyCopies) refuseCopy(metadata message.Metadata, err error) {
	a.countCopy("refused")
	a.complaints.Do(func() {
		transports.Traced(a.t.env.Logger, metadata).Warn("refusing a reply_to; the result has no copy",
			"reply_to", metadata[transports.ReplyTo], "message_id", metadata[transports.MessageID], "err", err)
	})
}

// run sends until ctx ends.
func (a *replyCopies) run(ctx context.Context) {
	for {
		select {
		case next := <-a.queue:
			a.countCopy(a.sendCopy(ctx, next))
		case <-ctx.Done():
			return
		}
	}
}

// send returns what became of the copy.
func (a *replyCopies) sendCopy(ctx context.Context, next replyCopy) string {
	publishing, err := a.t.marshaler.Marshal(next.result)
	if err != nil {
		return "failed"
	}
	if next.correlationID != "" {
		publishing.CorrelationId = next.correlationID
	}
	publishing.DeliveryMode = amqp.Transient
	ctx, cancel := context.WithDeadline(ctx, next.until)
	defer cancel()
	ch, err := a.readyChannel(ctx)
	switch {
	case ctx.Err() != nil:
		return "dropped"
	case err != nil:
		return "failed"
	}
	a.t.marshaler.fitFrame(&publishing, a.session.conn.Config.FrameSize)
	if ch.Publish(amqp.DefaultExchange, next.replyTo, false, false, publishing) != nil {
		return "failed"
	}
	return "sent"
}

// channel returns a channel as soon as there is a connection that the broker doesn't block.
func (a *replyCopies) readyChannel(ctx context.Context) (*amqp.Channel, error) {
	for {
		s, blocked, changed, _ := a.t.publisher.currentState()
		if s != nil && blocked == "" {
			if a.session == s && !a.ch.IsClosed() {
				return a.ch, nil
			}
			ch, err := s.conn.Channel()
			if err == nil {
				a.ch, a.session = ch, s
				return ch, nil
			}
			if !s.isLost() {
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
