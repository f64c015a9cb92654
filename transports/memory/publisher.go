package memory

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/transports"
)

// publisher publishes to topics for one pipeline.
type publisher struct {
	memory *memory
	once   sync.Once
	closed chan struct{}
}

// Publish appends each message to the buffers of all consumers of the topic. It waits while one of
// the buffers is full.
func (p *publisher) Publish(name string, msgs ...*message.Message) error {
	p.memory.mu.Lock()
	t := p.memory.topic(name)
	p.memory.mu.Unlock()
	for _, msg := range msgs {
		if err := p.publishOne(t, msg); err != nil {
			return fmt.Errorf("publishing to %s: %w", name, err)
		}
	}
	return nil
}

func (p *publisher) publishOne(t *topic, msg *message.Message) error {
	ctx := msg.Context()
	if err := p.closeError(ctx); err != nil {
		return err
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
	case <-p.closed:
	case <-p.memory.closed:
	}
	full := ""
	for {
		err := p.closeError(ctx)
		switch {
		case err != nil && full != "" && ctx.Err() != nil:
			return fmt.Errorf("%s: %w", full, err)
		case err != nil:
			return err
		}
		if full, err = p.appendOrFull(t, msg); full == "" || err != nil {
			return err
		}
		select {
		case <-t.room:
		case <-time.After(transports.RecheckTime):
		case <-ctx.Done():
		case <-p.closed:
		case <-p.memory.closed:
		}
	}
}

// appendOrFull appends the message to all buffers, or returns which buffer has no room for it.
func (p *publisher) appendOrFull(t *topic, msg *message.Message) (full string, err error) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	if t.drained {
		return "", fmt.Errorf("the topic is drained: %w", transports.ErrClosed)
	}
	if full := t.describeFull(); full != "" {
		return full, nil
	}
	metadata := make(message.Metadata, len(msg.Metadata))
	maps.Copy(metadata, msg.Metadata)
	maps.DeleteFunc(metadata, func(key, _ string) bool { return transports.OfDelivery(key) })
	t.appendToAll(&transports.Delivery{UUID: msg.UUID, Payload: msg.Payload, Metadata: metadata})
	p.memory.taps.Show(t.name, msg)
	return "", nil
}

// closeError returns why nothing may be published any more, or nil.
func (p *publisher) closeError(ctx context.Context) error {
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
