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

// The outbox publishes all messages of a transport. All publishers of the transport share it.
//
// The outbox has one confirm window (window.go) on the publishing connection, and a declaration
// for each topic that a publisher uses. Its goroutine opens a new confirm window whenever one is
// lost. A message is sent in these steps:
//
//   - It waits for a connection that the broker doesn't block and that has a confirm window.
//   - It waits until its topic is declared on that connection.
//   - It takes a slot in the confirm window, and is written.
//   - It waits for its confirm.
//
// Each wait ends with the caller's context, with publish_timeout, or with the Close of the
// publisher. If it ends before the message is written, the message wasn't sent. After that the
// outcome is undecided, unless the broker gave a verdict.
//
// Invariants: after the loss of a connection or channel, each topic is declared again before its
// next message. A message has its slot until finishMessage, even if its caller doesn't wait any
// more.
//
// Lock order: publisher.mu, outbox.mu, transport.mu. The locks declaration.mu, link.mu and
// confirmWindow.mu are each locked alone.

// outbox is the shared way to publish.
type outbox struct {
	t    *transport
	link *link
	log  *slog.Logger
	// deadlines makes the contexts that end after publish_timeout.
	deadlines *deadlines

	mu sync.Mutex
	// started says that each declaration has its goroutine.
	started  bool
	declared map[string]*declaration
}

// newOutbox returns the outbox of a transport. It declares nothing before run.
func newOutbox(t *transport) *outbox {
	return &outbox{
		t: t, link: t.publisher, log: t.env.Logger, declared: map[string]*declaration{},
		deadlines: &deadlines{after: t.config.PublishTimeout, cause: errPublishTimeout},
	}
}

// useDeclaration returns a topic's declaration for one more publisher.
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

// releaseDeclaration ends one publisher's use of a declaration. The last release ends the
// declaration.
func (o *outbox) releaseDeclaration(d *declaration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	d.users--
	if d.users == 0 {
		d.end()
		delete(o.declared, d.route.topic)
	}
}

// declarations returns the declarations of all topics that publishers use.
func (o *outbox) declarations() []*declaration {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Values(o.declared))
}

// startDeclaring starts the goroutine of each declaration, now and for later ones.
func (o *outbox) startDeclaring() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.started = true
	for _, d := range o.declared {
		o.t.startGoroutine(d.keepDeclared)
	}
}

// repeatAfter is how long a channel has to be open before the same cause of its loss is logged
// again.
const repeatAfter = time.Minute

// run opens a confirm window whenever there is a connection without one, until ctx ends.
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
		// Only the channel was closed, usually because an exchange is missing. Declare all topics
		// again.
		for _, d := range o.declarations() {
			d.forgetResult(0)
		}
		switch r := o.findMissingExchange(err); {
		case ctx.Err() != nil:
		case r != nil && r.declare:
			o.t.logDeleted("exchange", r.exchange)
		case r != nil:
			// The declaration of the topic reports that the exchange is missing.
		case said != err.Error() || time.Since(began) > repeatAfter:
			o.log.Warn("the channel for publishing was lost, opening another", "err", err)
			said = err.Error()
		}
		if !backoff.Sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// findMissingExchange returns a route to the exchange whose absence closed the channel, or nil. It
// prefers a route that declares the exchange.
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

// readyConfirmWindow returns the confirm window that takes messages now. If there is none, it
// returns why, and a channel that is closed when that changes.
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

// checkTopic returns why a message for a topic would have to wait now, or nil if it would not. If
// the topic has no declaration yet, only the connection counts.
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

// sendMessage writes a message as soon as the broker takes messages and the confirm window has a
// free slot. While it waits for a slot, it settles earlier messages of the batch. If it returns an
// error other than ErrUndecided, nothing was sent.
func (o *outbox) sendMessage(ctx context.Context, m amqp.Publishing, d *declaration, b *batch) (*pending, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("not sent: %w", context.Cause(ctx))
	}
	// wait returns nil when c is closed, or an error when the attempt has ended.
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
		// Nothing was written. Send it on the next channel.
		if err := wait(w.lost, errLost); err != nil {
			return nil, err
		}
	}
}

var errDeclaring = errors.New("declaring exchange and queue")

// awaitConfirm waits for the confirm of a message.
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
	// The message keeps its slot until the broker confirms or refuses it, or the channel is lost.
	o.t.startGoroutine(func() {
		<-p.confirm.Done()
		_, _ = p.confirmWindow.finishMessage(p)
	})
	c.undecided.Inc()
	return fmt.Errorf("%w: no confirm from the broker: %w", transports.ErrUndecided, context.Cause(over))
}

// finishMessage counts how a message ended, and returns an error if it isn't confirmed.
func (o *outbox) finishMessage(p *pending) error {
	r := p.declaration.route
	c := r.counters
	verdict, why := p.confirmWindow.finishMessage(p)
	switch verdict {
	case confirmed:
		c.confirmed.Inc()
		return nil
	case returned:
		// If the queue was deleted, declaring it again helps. The message may be unroutable for
		// another reason, so the topic is declared at most once per max_interval.
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
