package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

const (
	// openTakes is how long Publish waits for the Publisher to be made.
	openTakes = 5 * time.Second
	// brokenFor is how long a Publisher fails until another one is made.
	brokenFor = 30 * time.Second
	// refuseFor is how long after a failure nothing is accepted.
	refuseFor = 2 * time.Second
	// maxAbandoned is how many abandoned calls of Publish may still be running.
	maxAbandoned = 16
)

var errNotOpen = errors.New("the Publisher isn't open yet")

// outlet is the one Publisher of a transport, which all pipelines share: Watermill's are safe for
// that.
type outlet struct {
	t         *transport
	abandoned atomic.Int32

	mu    sync.Mutex
	ready chan struct{} // closed when stock is there
	stock message.Publisher
	// err is the result of the last attempt, made at last. since is when attempts began to fail.
	err         error
	since, last time.Time
}

// connect makes the Publisher, and tries until that works.
func (o *outlet) connect() {
	for pauses := backoff.New(firstPause, longestPause); o.t.life.Err() == nil; {
		var stock message.Publisher
		err := o.t.safely(func() (err error) {
			if stock, err = o.t.pubsub.Publisher(); err == nil && stock == nil {
				err = errors.New("the Pub/Sub returned no Publisher")
			}
			return err
		})
		if err == nil {
			o.t.report("opening the publisher", nil)
			o.open(stock)
			return
		}
		o.t.report("opening the publisher", err)
		o.note(fmt.Errorf("opening the Publisher: %w", err))
		backoff.Sleep(o.t.life, pauses.NextBackOff())
	}
}

// open begins to use a Publisher, unless the transport was closed meanwhile.
func (o *outlet) open(stock message.Publisher) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.t.life.Err() != nil {
		_ = o.t.safely(stock.Close)
		return
	}
	o.stock, o.err = stock, nil
	close(o.ready)
}

// note takes the result of an attempt. A Publisher that has failed for long is replaced.
func (o *outlet) note(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.err == nil {
		o.since = now
	}
	o.err, o.last = err, now
	if err == nil || o.stock == nil || now.Sub(o.since) < brokenFor {
		return
	}
	old := o.stock
	o.stock, o.ready, o.since = nil, make(chan struct{}), now
	o.t.startWork(func() {
		_ = o.t.safely(old.Close)
		o.connect()
	})
}

// failure returns why the Publisher doesn't work, or nil.
func (o *outlet) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// refusal is failure, for a short time after the last attempt.
func (o *outlet) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.last) > refuseFor && o.stock != nil {
		return nil
	}
	return o.err
}

// publisher waits for a moment until the Publisher is there.
func (o *outlet) publisher(ctx context.Context) (message.Publisher, error) {
	o.mu.Lock()
	ready := o.ready
	o.mu.Unlock()
	select {
	case <-ready:
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.stock == nil {
			return nil, errNotOpen
		}
		return o.stock, nil
	case <-time.After(openTakes):
		return nil, errNotOpen
	case <-o.t.life.Done():
		return nil, transports.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// publish makes one attempt. A call that still runs when ctx ends is abandoned: whether its
// messages arrive isn't known.
func (o *outlet) publish(ctx context.Context, topic string, msgs []*message.Message) error {
	stock, err := o.publisher(ctx)
	if err != nil {
		return err
	}
	if n := o.abandoned.Load(); n >= maxAbandoned {
		return fmt.Errorf("not publishing: %d earlier calls of Publish still hang", n)
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
	started := o.t.startWork(func() {
		result <- o.t.safely(func() error { return stock.Publish(topic, out...) })
		if left.Swap(true) {
			o.abandoned.Add(-1)
		}
	})
	if !started {
		return transports.ErrClosed
	}
	select {
	case err := <-result:
		if err != nil && o.unsendable(err) {
			return fmt.Errorf("%w: %w", transports.ErrUnsendable, err)
		}
		o.note(err)
		return err
	case <-ctx.Done():
		if o.abandoned.Add(1); left.Swap(true) {
			o.abandoned.Add(-1)
		}
		err := fmt.Errorf("%w: %w", transports.ErrUndecided, context.Cause(ctx))
		o.note(err)
		return err
	}
}

func (o *outlet) unsendable(err error) (never bool) {
	if o.t.pubsub.Unsendable != nil {
		_ = o.t.safely(func() error {
			never = o.t.pubsub.Unsendable(err)
			return nil
		})
	}
	return never
}

// close closes the Publisher, if it was made.
func (o *outlet) close() error {
	o.mu.Lock()
	stock := o.stock
	o.mu.Unlock()
	if stock == nil {
		return nil
	}
	return o.t.safely(stock.Close)
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
