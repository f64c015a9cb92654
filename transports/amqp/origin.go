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

// origin is the publisher of transports.Return. The metadata of each message name the exchange and
// the routing key to send it with. origin declares nothing, and doesn't use the outbox.
type origin struct {
	t *transport

	mu            sync.Mutex
	closed        bool
	confirmWindow *confirmWindow
}

var _ message.Publisher = (*origin)(nil)

// Publish sends the messages one after the other. It returns at the first error.
func (o *origin) Publish(_ string, msgs ...*message.Message) error {
	for _, msg := range msgs {
		r := &route{exchange: msg.Metadata[SourceExchange], publishKey: msg.Metadata[SourceRoutingKey]}
		if err := o.publishMessage(msg, r); err != nil {
			return fmt.Errorf("publishing to exchange %q with routing key %q: %w", r.exchange, r.publishKey, err)
		}
	}
	return nil
}

// publishMessage sends a message and waits for its confirm.
func (o *origin) publishMessage(msg *message.Message, r *route) error {
	for name, value := range map[string]string{"exchange": r.exchange, "routing key": r.publishKey} {
		if len(value) > maxShortString {
			return fmt.Errorf("%w: the %s is longer than %d bytes", transports.ErrUnsendable, name, maxShortString)
		}
	}
	m, err := o.t.marshaler.Marshal(msg)
	if err != nil {
		return err
	}
	ctx := msg.Context()
	p, err := o.sendMessage(ctx, m, r)
	if err != nil {
		return err
	}
	select {
	case <-p.confirm.Done():
		return p.returnError()
	case <-ctx.Done():
		// A later message may have the same id. Then a late return of this message would look like
		// a return of the later one. So no further message is sent on this channel.
		o.closeChannel()
		return fmt.Errorf("%w: no confirm from the broker: %w", transports.ErrUndecided, context.Cause(ctx))
	}
}

// sendMessage writes a message as soon as the broker takes messages and the message before it has
// finished.
func (o *origin) sendMessage(ctx context.Context, m amqp.Publishing, r *route) (*pending, error) {
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("not sent: %w", context.Cause(ctx))
		}
		w, err := o.awaitConfirmWindow(ctx)
		if err != nil {
			return nil, err
		}
		switch err := w.takeSlot(ctx, ctx, nil); {
		case errors.Is(err, errLost):
			continue
		case err != nil:
			return nil, err
		}
		p, err := w.publish(m, &declaration{route: r})
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, amqp.ErrClosed) {
			return nil, fmt.Errorf("%w: %w", transports.ErrUndecided, plainError(err))
		}
		// Nothing was written. Send the message on the next channel.
	}
}

// returnError returns the error for a message that origin has sent, or nil if it is confirmed.
func (p *pending) returnError() error {
	verdict, why := p.confirmWindow.finishMessage(p)
	switch verdict {
	case confirmed:
		return nil
	case returned:
		return fmt.Errorf("%w: %w", transports.ErrUnroutable, why)
	case refused:
		// Another queue may have stored the message.
		return fmt.Errorf("%w: the broker refused the message (negative confirm); is its queue full?", transports.ErrUndecided)
	}
	if e, ok := errors.AsType[*refusal](why); ok {
		switch e.cause.Code {
		case amqp.NotFound, amqp.AccessRefused:
			return fmt.Errorf("%w: %w", transports.ErrUnroutable, why)
		case amqp.PreconditionFailed:
			return fmt.Errorf("%w: %w", transports.ErrUnsendable, why)
		}
	}
	return fmt.Errorf("%w: %w", transports.ErrUndecided, why)
}

// awaitConfirmWindow returns a confirm window as soon as the broker takes messages.
func (o *origin) awaitConfirmWindow(ctx context.Context) (*confirmWindow, error) {
	for {
		s, blocked, changed, err := o.t.publisher.currentState()
		switch {
		case blocked != "":
			err = fmt.Errorf("the broker blocks publishing: %s", blocked)
		case s != nil:
			var w *confirmWindow
			if w, err = o.confirmWindowOn(s); err == nil || !s.isLost() {
				return w, err
			}
			// The connection was lost while the channel was opened. Wait for the next connection.
		}
		if errors.Is(err, transports.ErrClosed) {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("not sent: %w", err)
		}
	}
}

// confirmWindowOn returns the confirm window on a connection. It opens another one if the last was
// lost.
func (o *origin) confirmWindowOn(s *session) (*confirmWindow, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, transports.ErrClosed
	}
	if o.confirmWindow != nil && !o.confirmWindow.ch.IsClosed() {
		return o.confirmWindow, nil
	}
	w, err := openConfirmWindow(o.t.marshaler, s, 1, nil)
	if err != nil {
		return nil, err
	}
	if !o.t.startGoroutine(func() { w.markLost(plainError(<-w.closes)) }) {
		_ = w.ch.Close()
		return nil, transports.ErrClosed
	}
	o.confirmWindow = w
	return w, nil
}

// closeChannel closes the channel on a goroutine, because a broker that doesn't answer delays
// that.
func (o *origin) closeChannel() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if w := o.confirmWindow; w != nil {
		o.confirmWindow = nil
		o.t.startGoroutine(func() { _ = w.ch.Close() })
	}
}

// Close closes the publisher.
func (o *origin) Close() error {
	o.closeChannel()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	return nil
}
