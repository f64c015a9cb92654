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
	b := batch{outbox: p.t.outbox, sent: make([]*pending, 0, len(msgs))}
	for _, msg := range msgs {
		o, err := p.t.outbox.send(msg, r, deadline, &b)
		if err != nil {
			b.errs = append(b.errs, err)
			break
		}
		b.sent = append(b.sent, o)
	}
	for b.settled < len(b.sent) {
		b.await(msgs[b.settled].Context(), deadline)
	}
	if len(b.errs) > 0 {
		return fmt.Errorf("publishing to %s: %w", topic, errors.Join(b.errs...))
	}
	return nil
}

// batch is what one Publish has sent.
type batch struct {
	outbox *outbox
	sent   []*pending
	// settled counts those at the beginning of sent whose fate is known.
	settled int
	errs    []error
}

// oldest is closed when the fate of the oldest message can be known.
func (b *batch) oldest() <-chan struct{} {
	if b.settled == len(b.sent) {
		return nil
	}
	return b.sent[b.settled].confirm.Done()
}

// await settles the oldest message.
func (b *batch) await(ctx, deadline context.Context) {
	p := b.sent[b.settled]
	b.settled++
	if err := b.outbox.await(ctx, p, deadline); err != nil {
		b.errs = append(b.errs, err)
	}
}

// Close ends this pipeline's use; messages on their way stay awaited by their callers.
func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}

var errPublishTimeout = errors.New("publish_timeout is over")
