package amqp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/transports"
)

// outbox is the one way out, for all publishers: a channel with confirms on the publishing connection, opened again whenever it
// is lost, and the declarations of all topics that are published to.
type outbox struct {
	t    *transport
	link *link
	log  *slog.Logger
	// deadlines are those of what is published.
	deadlines *deadlines

	mu sync.Mutex
	// begun says that declarations are kept from now on.
	started  bool
	declared map[string]*declaration
}

func newOutbox(t *transport) *outbox {
	return &outbox{
		t: t, link: t.publisher, log: t.env.Logger, declared: map[string]*declaration{},
		deadlines: &deadlines{after: t.config.PublishTimeout, cause: errPublishTimeout},
	}
}

// take returns a topic's declaration for one more publisher.
func (o *outbox) useDeclaration(r *route) *declaration {
	o.mu.Lock()
	defer o.mu.Unlock()
	d := o.declared[r.topic]
	if d == nil {
		d = newDeclaration(o.t, r)
		o.declared[r.topic] = d
		if o.started {
			o.t.startGoroutine(d.keepDeclared)
		}
	}
	d.users++
	return d
}

// release gives a declaration back.
func (o *outbox) releaseDeclaration(d *declaration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.users--
	if d.users == 0 {
		d.end()
		delete(o.declared, d.route.topic)
	}
}

// declarations are those of all topics that are published to.
func (o *outbox) declarations() []*declaration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Values(o.declared))
}

// begin keeps the declarations, those so far and those to come.
func (o *outbox) startDeclaring() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started = true
	for _, d := range o.declared {
		o.t.startGoroutine(d.keepDeclared)
	}
}

// saidFor is how long a channel has to live so that the cause of its loss is news again.
const repeatAfter = time.Minute

// run keeps a channel open until ctx ends.
func (o *outbox) run(ctx context.Context) {
	o.startDeclaring()
	said := ""
	var suspects map[string]struct{}
	pauses := backoff.New(o.t.config.Reconnect.InitialInterval, o.t.config.Reconnect.InitialInterval)
	for {
		s, err := o.link.awaitSession(ctx)
		if err != nil {
			return
		}
		began := time.Now()
		w, err := openConfirmWindow(o.t.marshaler, s, o.t.config.ConfirmWindow, suspects)
		if err == nil {
			o.link.changeState(func() { s.confirmWindow = w })
			e := <-w.closes
			err = plainError(e)
			o.link.changeState(func() { s.confirmWindow = nil })
			suspects = w.markLost(err)
		}
		if s.isLost() {
			said = ""
			continue
		}
		// The channel alone was closed: by an exchange that is gone, as a rule. Everything is declared again.
		for _, d := range o.declarations() {
			d.forgetResult(0)
		}
		switch r := o.findMissingExchange(err); {
		case ctx.Err() != nil:
		case r != nil && r.declare:
			o.t.logDeleted("exchange", r.exchange)
		case r != nil:
			// The next look at its topic finds it missing and says so.
		case said != err.Error() || time.Since(began) > repeatAfter:
			o.log.Warn("the channel for publishing was lost, opening another", "err", err)
			said = err.Error()
		}
		if !backoff.Sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// missing is a route to the exchange whose absence closed the channel, one that declares it if there is one.
func (o *outbox) findMissingExchange(err error) *route {
	e, ok := errors.AsType[*refusal](err)
	if !ok || e.cause.Code != amqp.NotFound {
		return nil
	}
	var found *route
	for _, d := range o.declarations() {
		if e.namesExchange(d.route.exchange) && (found == nil || d.route.declare) {
			found = d.route
		}
	}
	return found
}

// ready returns the window through which messages can leave, or why there is none.
func (o *outbox) readyConfirmWindow() (s *session, w *confirmWindow, changed <-chan struct{}, err error) {
	l := o.link
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s := l.session; {
	case s == nil:
		return nil, nil, l.changed, fmt.Errorf("no connection to the broker: %w", l.err)
	case s.blocked != "":
		return nil, nil, l.changed, fmt.Errorf("the broker blocks publishing: %s", s.blocked)
	case s.confirmWindow == nil:
		return nil, nil, l.changed, errors.New("no channel to the broker yet")
	default:
		return s, s.confirmWindow, l.changed, nil
	}
}

// accepts returns why a message for a topic would have to wait now. A topic that is yet to be declared on a connection that works
// doesn't.
func (o *outbox) checkTopic(topic string) error {
	s, _, _, err := o.readyConfirmWindow()
	if err != nil {
		return err
	}
	o.mu.Lock()
	d := o.declared[topic]
	o.mu.Unlock()
	if d == nil {
		return nil
	}
	if decided, _, err := d.resultOn(s); decided {
		return err
	}
	return nil
}

// send writes a message as soon as the broker takes messages and the window has room, for which it settles earlier messages of the
// batch. After an error nothing was sent.
func (o *outbox) sendMessage(ctx context.Context, m amqp.Publishing, d *declaration, b *batch) (*pending, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("not sent: %w", context.Cause(ctx))
	}
	// wait returns why the attempt is over, or nil if c was closed.
	wait := func(c <-chan struct{}, why error) error {
		select {
		case <-c:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("not sent: %w: %w", context.Cause(ctx), why)
		case <-b.deadline.Done():
			return fmt.Errorf("not sent: %w: %w", context.Cause(b.deadline), why)
		case <-d.ctx.Done():
			return fmt.Errorf("not sent: %w: %w", transports.ErrClosed, why)
		}
	}
	r := d.route
	for {
		s, w, changed, why := o.readyConfirmWindow()
		if why != nil {
			if errors.Is(why, transports.ErrClosed) {
				return nil, why
			}
			if err := wait(changed, why); err != nil {
				return nil, err
			}
			continue
		}
		decided, changed, err := d.resultOn(s)
		switch {
		case !decided:
			if err := wait(changed, errDeclaring); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			if s.isLost() {
				continue
			}
			return nil, err
		}
		switch err := w.takeSlot(ctx, b.deadline, b.oldestConfirm()); {
		case errors.Is(err, errOwnConfirmed):
			b.settleOldest()
			continue
		case errors.Is(err, errLost):
			continue
		case err != nil:
			return nil, err
		}
		p, err := w.publish(m, d)
		if err == nil {
			r.counters.published.Inc()
			return p, nil
		}
		if !errors.Is(err, amqp.ErrClosed) {
			r.counters.undecided.Inc()
			return nil, fmt.Errorf("%w: %w", transports.ErrUndecided, plainError(err))
		}
		// Nothing was written; the next channel gets it.
		if err := wait(w.lost, errLost); err != nil {
			return nil, err
		}
	}
}

var errDeclaring = errors.New("declaring exchange and queue")

// await waits for the broker's word on a message.
func (o *outbox) awaitConfirm(ctx context.Context, p *pending, deadline context.Context) error {
	c := p.declaration.route.counters
	over := deadline
	select {
	case <-p.confirm.Done():
		return o.finishMessage(p)
	case <-ctx.Done():
		over = ctx
	case <-deadline.Done():
	}
	// Its place in the window is free only when the broker has spoken, or the channel is lost.
	o.t.startGoroutine(func() {
		<-p.confirm.Done()
		_, _ = p.confirmWindow.finishMessage(p)
	})
	c.undecided.Inc()
	return fmt.Errorf("%w: no confirm from the broker: %w", transports.ErrUndecided, context.Cause(over))
}

func (o *outbox) finishMessage(p *pending) error {
	r := p.declaration.route
	c := r.counters
	verdict, why := p.confirmWindow.finishMessage(p)
	switch verdict {
	case confirmed:
		c.confirmed.Inc()
		return nil
	case returned:
		// Perhaps the queue was deleted; declaring again brings it back. Not more often than once in the longest pause, as the message
		// may be unroutable for another reason.
		p.declaration.forgetResult(o.t.config.Reconnect.MaxInterval)
		if r.drop {
			c.dropped.Inc()
			return nil
		}
		c.retried.Inc()
		return fmt.Errorf("%w: exchange %q, routing key %q: %w", transports.ErrUnroutable, r.exchange, r.publishKey, why)
	case refused:
		c.refused.Inc()
		return errors.New("the broker refused the message (negative confirm); is its queue full?")
	default:
		c.undecided.Inc()
		return p.lossError(why)
	}
}
