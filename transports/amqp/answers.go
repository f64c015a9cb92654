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
	// copyWait is how long a copy waits for a connection.
	copyWait = time.Minute
	// copyBuffer is how many copies may wait for a connection. Further copies are dropped.
	copyBuffer = 256
)

// replyCopies sends a copy of each result to the reply_to of the message that caused it. Each copy
// has one attempt, on a channel without confirms that nothing else uses.
type replyCopies struct {
	t       *transport
	allowed replyQueues
	queue   chan replyCopy
	// ch is a channel on session. Both belong to the goroutine of run.
	ch      *amqp.Channel
	session *session
	// complaints limits the log to one refused copy a minute.
	complaints rate.Sometimes
}

// replyCopy is a copy of a result for a reply_to.
type replyCopy struct {
	replyTo, correlationID string
	result                 *message.Message
	// until is when the copy stops waiting for a connection.
	until time.Time
}

// newReplyCopies returns the copies of a transport. Nothing is sent before run.
func newReplyCopies(t *transport) *replyCopies {
	return &replyCopies{t: t, allowed: newReplyQueues(t.config.ReplyTo, t.env.Consumed), queue: make(chan replyCopy, copyBuffer), complaints: rate.Sometimes{Interval: time.Minute}}
}

// Answer implements transports.Answerer. It queues a copy of the first produced message, unless
// reply_to names a queue that isn't allowed. If the produced message has the same reply_to, the
// receiver of that message answers the request. Then Answer queues no copy.
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

// countCopy counts a copy by its outcome.
func (a *replyCopies) countCopy(outcome string) { a.t.metrics.replies.WithLabelValues(outcome).Inc() }

// refuseCopy counts a reply_to that isn't allowed. Everyone who may publish can cause many of
// them, so the log has at most one a minute.
func (a *replyCopies) refuseCopy(metadata message.Metadata, err error) {
	a.countCopy("refused")
	a.complaints.Do(func() {
		transports.Traced(a.t.env.Logger, metadata).Warn("refusing a reply_to; the result has no copy",
			"reply_to", metadata[transports.ReplyTo], "message_id", metadata[transports.MessageID], "err", err)
	})
}

// run sends the queued copies until ctx ends.
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

// sendCopy sends a copy and returns its outcome.
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

// readyChannel returns a channel as soon as there is a connection that the broker doesn't block.
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
