package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// publisher is one pipeline's; all share the outbox.
type publisher struct {
	t      *transport
	closed atomic.Bool
}

var _ message.Publisher = (*publisher)(nil)

// Publish sends messages in order and returns when the broker has confirmed all of them, or when publish_timeout or a
// message's context ends.
func (p *publisher) Publish(topic string, msgs ...*message.Message) error {
	if p.closed.Load() || p.t.closing.Err() != nil {
		return fmt.Errorf("publishing to %s: %w", topic, transports.ErrClosed)
	}
	r, err := p.t.route(topic)
	if err != nil {
		return err
	}
	deadline, cancel := context.WithTimeoutCause(context.Background(), p.t.config.PublishTimeout, errPublishTimeout)
	defer cancel()
	var errs []error
	sent := make([]*pending, 0, len(msgs))
	for _, msg := range msgs {
		o, err := p.t.outbox.send(msg, r, deadline)
		if err != nil {
			errs = append(errs, err)
			break
		}
		sent = append(sent, o)
	}
	for i, o := range sent {
		if err := p.t.outbox.await(msgs[i].Context(), o, deadline); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("publishing to %s: %w", topic, errors.Join(errs...))
	}
	return nil
}

// Close ends this pipeline's use; messages on their way stay awaited by their callers.
func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}

var errPublishTimeout = errors.New("publish_timeout is over")
