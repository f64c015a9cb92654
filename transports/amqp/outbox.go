package amqp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// outbox is the one way out, for all publishers: a channel with confirms on the publishing connection, opened again whenever it
// is lost, and the topology of every topic that was published to on this connection.
type outbox struct {
	t    *transport
	link *link
	log  *slog.Logger

	mu sync.Mutex
	// built is what was declared on the session named here.
	builtOn *session
	built   map[string]*building
}

// building is the declaration of one topic.
type building struct {
	done chan struct{}
	// err and at are set once done is closed.
	err error
	at  time.Time
}

// run keeps a channel open until ctx ends.
func (o *outbox) run(ctx context.Context) {
	said := ""
	for {
		s, err := o.link.wait(ctx)
		if err != nil {
			return
		}
		w, err := openWindow(s, o.t.config.ConfirmWindow)
		if err == nil {
			o.link.change(func() { s.window = w })
			e := <-w.closes
			err = plain(e)
			o.link.change(func() { s.window = nil })
			w.fail(err)
		}
		if s.lost() {
			said = ""
			continue
		}
		// The channel alone was closed: by an exchange that is gone, as a rule. Everything is declared again.
		o.forget(s, "")
		if ctx.Err() == nil && said != err.Error() {
			o.log.Warn("the channel for publishing was lost, opening another", "err", err)
			said = err.Error()
		}
		if !sleep(ctx, jittered(o.t.config.Reconnect.InitialInterval)) {
			return
		}
	}
}

// ready returns the window through which messages can leave, or why there is none.
func (o *outbox) ready() (s *session, w *window, changed <-chan struct{}, err error) {
	l := o.link
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s := l.session; {
	case s == nil:
		return nil, nil, l.changed, fmt.Errorf("no connection to the broker: %w", l.err)
	case s.blocked != "":
		return nil, nil, l.changed, fmt.Errorf("the broker blocks publishing: %s", s.blocked)
	case s.window == nil:
		return nil, nil, l.changed, errors.New("no channel to the broker yet")
	default:
		return s, s.window, l.changed, nil
	}
}

// send writes a message as soon as the broker takes messages and the window has room, for which it settles earlier messages of the
// batch. After an error nothing was sent.
func (o *outbox) send(msg *message.Message, r *route, deadline context.Context, b *batch) (*pending, error) {
	ctx := msg.Context()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("not sent: %w", context.Cause(ctx))
	}
	publishing, err := o.t.marshaler.Marshal(msg)
	if err != nil {
		return nil, err
	}
	// wait returns why the attempt is over, or nil if c was closed.
	wait := func(c <-chan struct{}, why error) error {
		select {
		case <-c:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("not sent: %w: %w", context.Cause(ctx), why)
		case <-deadline.Done():
			return fmt.Errorf("not sent: %w: %w", context.Cause(deadline), why)
		}
	}
	for {
		s, w, changed, why := o.ready()
		if why != nil {
			if errors.Is(why, transports.ErrClosed) {
				return nil, why
			}
			if err := wait(changed, why); err != nil {
				return nil, err
			}
			continue
		}
		built := o.build(s, r)
		if err := wait(built.done, errDeclaring); err != nil {
			return nil, err
		}
		if built.err != nil {
			if s.lost() {
				continue
			}
			return nil, built.err
		}
		switch err := w.enter(ctx, deadline, b.oldest()); {
		case errors.Is(err, errConfirmed):
			b.await(ctx, deadline)
			continue
		case errors.Is(err, errLost):
			continue
		case err != nil:
			return nil, err
		}
		p, err := w.publish(publishing, r)
		if err == nil {
			r.counters.published.Inc()
			return p, nil
		}
		if !errors.Is(err, amqp.ErrClosed) {
			r.counters.undecided.Inc()
			return nil, fmt.Errorf("%w: %w", transports.ErrUndecided, plain(err))
		}
		// Nothing was written; the next channel gets it.
		if err := wait(w.gone, errLost); err != nil {
			return nil, err
		}
	}
}

var errDeclaring = errors.New("declaring exchange and queue")

// await waits for the broker's word on a message.
func (o *outbox) await(ctx context.Context, p *pending, deadline context.Context) error {
	c := p.route.counters
	over := deadline
	select {
	case <-p.confirm.Done():
		return o.finish(p)
	case <-ctx.Done():
		over = ctx
	case <-deadline.Done():
	}
	// Its place in the window is free only when the broker has spoken, or the channel is lost.
	o.t.goes(func() {
		<-p.confirm.Done()
		_, _ = p.window.finish(p)
	})
	c.undecided.Inc()
	return fmt.Errorf("%w: no confirm from the broker: %w", transports.ErrUndecided, context.Cause(over))
}

func (o *outbox) finish(p *pending) error {
	c := p.route.counters
	verdict, why := p.window.finish(p)
	switch verdict {
	case confirmed:
		c.confirmed.Inc()
		return nil
	case returned:
		// Perhaps the queue was deleted; declaring again brings it back.
		o.forget(p.window.session, p.route.topic)
		if p.route.drop {
			c.dropped.Inc()
			return nil
		}
		c.retried.Inc()
		return fmt.Errorf("%w: exchange %q, routing key %q: %w", transports.ErrUnroutable, p.route.exchange, p.route.publishKey, why)
	case refused:
		c.refused.Inc()
		return errors.New("the broker refused the message (negative confirm); is its queue full?")
	default:
		c.undecided.Inc()
		return fmt.Errorf("%w: %w", transports.ErrUndecided, why)
	}
}

// build declares a topic's exchange and queue, once a session, and again some time after an error.
func (o *outbox) build(s *session, r *route) *building {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.builtOn != s {
		o.builtOn, o.built = s, map[string]*building{}
	}
	if b := o.built[r.topic]; b != nil {
		select {
		case <-b.done:
			if b.err == nil || time.Since(b.at) < o.t.config.Reconnect.MaxInterval {
				return b
			}
		default:
			return b
		}
	}
	b := &building{done: make(chan struct{})}
	o.built[r.topic] = b
	if !o.t.goes(func() { o.declare(s, r, b) }) {
		b.err = transports.ErrClosed
		close(b.done)
	}
	return b
}

func (o *outbox) declare(s *session, r *route, b *building) {
	defer close(b.done)
	// An exclusive queue belongs to the consuming connection. Of what is only checked, a publisher needs the exchange.
	queue := r.queue
	if r.config.Queue.Exclusive || !r.declare {
		queue = ""
	}
	b.err = r.build(s.conn, queue)
	b.at = time.Now()
	switch {
	case b.err == nil:
		o.t.topics.works(r.topic, publisherRole)
	case !s.lost():
		o.t.topics.fails(r.topic, publisherRole, b.err)
	}
}

// forget has a topic, or all, declared again before the next message. Not more often than once in the longest pause: what comes
// back may be unroutable for another reason.
func (o *outbox) forget(s *session, topic string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.builtOn != s {
		return
	}
	if topic == "" {
		clear(o.built)
		return
	}
	if b := o.built[topic]; b != nil {
		select {
		case <-b.done:
			if time.Since(b.at) >= o.t.config.Reconnect.MaxInterval {
				delete(o.built, topic)
			}
		default:
		}
	}
}
