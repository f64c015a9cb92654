package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

const (
	// outletPart is the name of the Publisher in the health.
	outletPart = "publisher"
	// openTakes is how long Publish waits for the Publisher to be made.
	openTakes = 5 * time.Second
	// maxAbandoned is how many calls of the Publisher may hang when nobody waits for them any more.
	maxAbandoned = 16
)

var errNotOpen = errors.New("the publisher isn't open yet")

// outlet is the one Publisher of a transport, which all pipelines share: Watermill's are safe for that.
type outlet struct {
	t         *transport
	ready     chan struct{} // closed when stock is there
	stock     message.Publisher
	abandoned atomic.Int32
}

// connect makes the Publisher, and tries until that works.
func (o *outlet) connect() {
	for pauses := backoff.New(firstPause, longestPause); o.t.life.Err() == nil; {
		err := safely(func() (err error) {
			o.stock, err = o.t.pubsub.Publisher()
			return err
		})
		if err == nil {
			close(o.ready)
			o.t.report(outletPart, nil)
			return
		}
		o.t.report(outletPart, fmt.Errorf("opening: %w", err))
		backoff.Sleep(o.t.life, pauses.NextBackOff())
	}
}

// await waits for a moment until the Publisher is there.
func (o *outlet) await(ctx context.Context) error {
	select {
	case <-o.ready:
		return nil
	case <-time.After(openTakes):
		return errNotOpen
	case <-o.t.life.Done():
		return transports.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// publish makes one attempt. A call that hangs when ctx ends goes on alone: whether its messages arrive isn't known.
func (o *outlet) publish(ctx context.Context, topic string, msgs []*message.Message) error {
	if err := o.await(ctx); err != nil {
		return err
	}
	if n := o.abandoned.Load(); n >= maxAbandoned {
		return fmt.Errorf("%d earlier calls haven't returned", n)
	}
	out := make([]*message.Message, len(msgs))
	for i, msg := range msgs {
		if msg.Context().Err() != nil {
			return context.Cause(msg.Context())
		}
		out[i] = outgoing(msg)
	}
	result := make(chan error, 1)
	var left atomic.Bool // by one of the two sides; the second one counts
	started := o.t.goes(func() {
		result <- safely(func() error { return o.stock.Publish(topic, out...) })
		if left.Swap(true) {
			o.abandoned.Add(-1)
		}
	})
	if !started {
		return transports.ErrClosed
	}
	select {
	case err := <-result:
		if err != nil && o.t.pubsub.Unsendable != nil && o.t.pubsub.Unsendable(err) {
			return fmt.Errorf("%w: %w", transports.ErrUnsendable, err)
		}
		return err
	case <-ctx.Done():
		if o.abandoned.Add(1); left.Swap(true) {
			o.abandoned.Add(-1)
		}
		return fmt.Errorf("%w: %w", transports.ErrUndecided, context.Cause(ctx))
	}
}

// close closes the Publisher, if it was made.
func (o *outlet) close() error {
	select {
	case <-o.ready:
		return safely(o.stock.Close)
	default:
		return nil
	}
}

// publisher is one pipeline's use of the outlet.
type publisher struct {
	outlet *outlet
	closed atomic.Bool
}

// Publish implements message.Publisher.
func (p *publisher) Publish(topic string, msgs ...*message.Message) error {
	if len(msgs) == 0 {
		return nil
	}
	err := transports.ErrClosed
	if !p.closed.Load() {
		err = p.outlet.publish(msgs[0].Context(), topic, msgs)
	}
	if err != nil {
		return fmt.Errorf("publishing to %s: %w", topic, err)
	}
	return nil
}

// Close ends the pipeline's use; the Publisher stays open for others.
func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}
