package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// publisher is the publisher of one pipeline. All publishers share the outbox.
type publisher struct {
	t *transport

	mu     sync.Mutex
	closed bool
	// topics are the declarations that the publisher uses.
	topics map[string]*declaration
}

var _ message.Publisher = (*publisher)(nil)

// needDeclaration returns a topic's declaration. The publisher uses it until Close.
func (p *publisher) needDeclaration(topic string) (*declaration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.t.closing.Err() != nil {
		return nil, fmt.Errorf("publishing to %s: %w", topic, transports.ErrClosed)
	}
	if d := p.topics[topic]; d != nil {
		return d, nil
	}
	r, err := p.t.route(topic)
	if err != nil {
		return nil, err
	}
	d := p.t.outbox.useDeclaration(r)
	p.topics[topic] = d
	return d, nil
}

// Publish sends messages in order. It returns when the broker has confirmed all of them, or when
// publish_timeout or a message's context ends.
func (p *publisher) Publish(topic string, msgs ...*message.Message) error {
	d, err := p.needDeclaration(topic)
	if err != nil {
		return err
	}
	left := make([]item, len(msgs))
	for i, msg := range msgs {
		left[i].ctx = msg.Context()
		if left[i].publishing, err = p.t.marshaler.Marshal(msg); err != nil {
			return fmt.Errorf("publishing to %s: %w", topic, err)
		}
	}
	deadline := p.t.outbox.deadlines.sharedContext()
	for len(left) > 0 {
		b := batch{outbox: p.t.outbox, deadline: deadline, items: left}
		if left, err = b.sendItems(d); err != nil {
			return fmt.Errorf("publishing to %s: %w", topic, err)
		}
	}
	return nil
}

// item is one message of a Publish.
type item struct {
	ctx        context.Context
	publishing amqp.Publishing
	// pending is the last attempt to send the message. If it isn't nil, the message may have
	// arrived.
	pending *pending
}

// batch is one round of a Publish. A round sends all messages and waits for their confirms. The
// next round sends the messages that have to be sent again.
type batch struct {
	outbox   *outbox
	deadline context.Context
	items    []item
	// sent is the number of items that were sent, and settled the number of those whose outcome is
	// known. The first sendAgain items have to be sent again.
	sent, settled, sendAgain int
	errs                     []error
}

// sendItems sends the items and waits for their outcomes. It returns the items to send again.
func (b *batch) sendItems(d *declaration) (again []item, _ error) {
	for b.sent < len(b.items) {
		next := &b.items[b.sent]
		p, err := b.outbox.sendMessage(next.ctx, next.publishing, d, b)
		if err != nil {
			if next.pending != nil {
				err = fmt.Errorf("%w: %w", transports.ErrUndecided, err)
			}
			b.errs = append(b.errs, err)
			break
		}
		next.pending = p
		b.sent++
	}
	for b.settled < b.sent {
		b.settleOldest()
	}
	if b.sendAgain > 0 && b.deadline.Err() != nil {
		b.errs = append(b.errs, fmt.Errorf("%w: %w", transports.ErrUndecided, context.Cause(b.deadline)))
	}
	return b.items[:b.sendAgain], errors.Join(b.errs...)
}

// oldestConfirm returns a channel that is closed when the confirm of the oldest unsettled message
// is complete.
func (b *batch) oldestConfirm() <-chan struct{} {
	if b.settled == b.sent {
		return nil
	}
	return b.items[b.settled].pending.confirm.Done()
}

// settleOldest waits for the confirm of the oldest unsettled message.
func (b *batch) settleOldest() {
	oldest := b.items[b.settled]
	b.settled++
	switch err := b.outbox.awaitConfirm(oldest.ctx, oldest.pending, b.deadline); {
	case errors.Is(err, errSendAgain):
		b.items[b.sendAgain] = oldest
		b.sendAgain++
	case err != nil:
		b.errs = append(b.errs, err)
	}
}

// Close closes the publisher. Callers of Publish still wait for the confirms of messages that are
// sent.
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, d := range p.topics {
		p.t.outbox.releaseDeclaration(d)
	}
	clear(p.topics)
	return nil
}

var errPublishTimeout = errors.New("publish_timeout has passed")
