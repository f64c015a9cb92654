package memory

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// publisher is one pipeline's way in.
type publisher struct {
	memory *memory
	once   sync.Once
	closed chan struct{}
}

// Publish puts each message into the buffers of all of the topic's consumers at once, and waits while one of them is full.
func (p *publisher) Publish(name string, msgs ...*message.Message) error {
	p.memory.mu.Lock()
	t := p.memory.topic(name)
	p.memory.mu.Unlock()
	for _, msg := range msgs {
		if err := p.publish(t, msg); err != nil {
			return fmt.Errorf("publishing to %s: %w", name, err)
		}
	}
	return nil
}

func (p *publisher) publish(t *topic, msg *message.Message) error {
	ctx := msg.Context()
	if err := p.ended(ctx); err != nil {
		return err
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
	case <-p.closed:
	case <-p.memory.closed:
	}
	for {
		if err := p.ended(ctx); err != nil {
			return err
		}
		full, err := p.offer(t, msg)
		if full == nil || err != nil {
			return err
		}
		select {
		case <-t.room:
		case <-ctx.Done():
			return fmt.Errorf("the buffer of pipeline %s is full with %d messages: %w", full.pipeline, full.limit, context.Cause(ctx))
		case <-p.closed:
		case <-p.memory.closed:
		}
	}
}

// offer appends the message, or returns the consumer whose buffer is full.
func (p *publisher) offer(t *topic, msg *message.Message) (*consumer, error) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	if t.drained {
		return nil, fmt.Errorf("the topic was drained: %w", transports.ErrClosed)
	}
	if full := t.full(); full != nil {
		return full, nil
	}
	metadata := make(message.Metadata, len(msg.Metadata))
	maps.Copy(metadata, msg.Metadata)
	maps.DeleteFunc(metadata, func(key, _ string) bool { return transports.OfDelivery(key) })
	t.add(&transports.Delivery{UUID: msg.UUID, Payload: msg.Payload, Metadata: metadata})
	p.memory.taps.Show(t.name, msg)
	return nil, nil
}

// ended says why nothing may be published any more.
func (p *publisher) ended(ctx context.Context) error {
	select {
	case <-p.closed:
		return transports.ErrClosed
	case <-p.memory.closed:
		return transports.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
		return nil
	}
}

func (p *publisher) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}
