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
	// openTimeout is how long Publish waits until the Publisher is made.
	openTimeout = 5 * time.Second
	// replaceAfter is how long a Publisher may fail before it is replaced.
	replaceAfter = 30 * time.Second
	// refuseTime is how long Accepts refuses messages after a failure.
	refuseTime = 2 * time.Second
	// maxAbandoned is the most abandoned calls of Publish that may still run.
	maxAbandoned = 16
)

var errNotOpen = errors.New("the Publisher isn't open yet")

// outlet has the Publisher of a transport. All pipelines share it, because a Watermill Publisher
// is safe for concurrent use. connect makes it; noteResult replaces it when it has failed for
// replaceAfter.
type outlet struct {
	t         *transport
	abandoned atomic.Int32

	mu      sync.Mutex
	ready   chan struct{} // closed when current is set
	current message.Publisher
	// err is the result of the last attempt, and last is its time. since is when attempts began to
	// fail.
	err         error
	since, last time.Time
}

// connect makes the Publisher. It tries until that works or the transport is closed.
func (o *outlet) connect() {
	for pauses := backoff.New(firstPause, longestPause); o.t.life.Err() == nil; {
		var stock message.Publisher
		log := newLogger(o.t.env.Logger)
		err := o.t.callSafely(func() (err error) {
			if stock, err = o.t.pubsub.Publisher(log); err == nil && stock == nil {
				err = errors.New("the Pub/Sub returned no Publisher")
			}
			return err
		})
		if err == nil {
			o.t.report("opening the publisher", nil)
			o.use(quietPublisher{stock, log})
			return
		}
		o.t.report("opening the publisher", err)
		o.noteResult(fmt.Errorf("opening the Publisher: %w", err))
		backoff.Sleep(o.t.life, pauses.NextBackOff())
	}
}

// use makes a new Publisher the current one. It closes it instead if the transport is closed.
func (o *outlet) use(stock message.Publisher) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.t.life.Err() != nil {
		_ = o.t.callSafely(stock.Close)
		return
	}
	o.current, o.err = stock, nil
	close(o.ready)
}

// noteResult records the result of an attempt. It replaces a Publisher that has failed for too
// long.
func (o *outlet) noteResult(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if o.err == nil {
		o.since = now
	}
	o.err, o.last = err, now
	if err == nil || o.current == nil || now.Sub(o.since) < replaceAfter {
		return
	}
	old := o.current
	o.current, o.ready, o.since = nil, make(chan struct{}), now
	o.t.startWork(func() {
		_ = o.t.callSafely(old.Close)
		o.connect()
	})
}

// failure returns why the Publisher doesn't work, or nil.
func (o *outlet) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// refusal returns why the Publisher doesn't work, for a short time after the last attempt. After
// that it returns nil, unless there is no Publisher.
func (o *outlet) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.last) > refuseTime && o.current != nil {
		return nil
	}
	return o.err
}

// publisher returns the Publisher. It waits up to openTimeout until there is one.
func (o *outlet) publisher(ctx context.Context) (message.Publisher, error) {
	o.mu.Lock()
	ready := o.ready
	o.mu.Unlock()
	select {
	case <-ready:
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.current == nil {
			return nil, errNotOpen
		}
		return o.current, nil
	case <-time.After(openTimeout):
		return nil, errNotOpen
	case <-o.t.life.Done():
		return nil, transports.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// publish makes one attempt. If the call of Publish still runs when ctx ends, it is abandoned.
// Then it isn't known whether its messages arrive.
func (o *outlet) publish(ctx context.Context, topic string, msgs []*message.Message) error {
	stock, err := o.publisher(ctx)
	if err != nil {
		return err
	}
	if n := o.abandoned.Load(); n >= maxAbandoned {
		return fmt.Errorf("not publishing: %d earlier calls of Publish haven't returned", n)
	}
	out := make([]*message.Message, len(msgs))
	for i, msg := range msgs {
		if msg.Context().Err() != nil {
			return context.Cause(msg.Context())
		}
		out[i] = outgoing(msg)
	}
	result := make(chan error, 1)
	var left atomic.Bool // the first goroutine to leave sets it; the second corrects abandoned
	started := o.t.startWork(func() {
		result <- o.t.callSafely(func() error { return stock.Publish(topic, out...) })
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
		o.noteResult(err)
		return err
	case <-ctx.Done():
		if o.abandoned.Add(1); left.Swap(true) {
			o.abandoned.Add(-1)
		}
		err := fmt.Errorf("%w: %w", transports.ErrUndecided, context.Cause(ctx))
		o.noteResult(err)
		return err
	}
}

func (o *outlet) unsendable(err error) (never bool) {
	if o.t.pubsub.Unsendable != nil {
		_ = o.t.callSafely(func() error {
			never = o.t.pubsub.Unsendable(err)
			return nil
		})
	}
	return never
}

// close closes the Publisher, if it was made.
func (o *outlet) close() error {
	o.mu.Lock()
	stock := o.current
	o.mu.Unlock()
	if stock == nil {
		return nil
	}
	return o.t.callSafely(stock.Close)
}

// publisher publishes to the outlet for one pipeline.
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

// Close closes only this pipeline's publisher. The Publisher of the Pub/Sub stays open for others.
func (p *publisher) Close() error {
	p.closed.Store(true)
	return nil
}
