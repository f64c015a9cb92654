package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// window is one channel in confirm mode with a bound on what awaits its confirm.
type window struct {
	session *session
	ch      *amqp.Channel
	closes  <-chan *amqp.Error
	// slots holds one token a message that awaits its confirm.
	slots chan struct{}
	// gone is closed when the channel is lost; err says why, and alone that no more than one message awaited its confirm.
	gone  chan struct{}
	err   error
	alone bool

	mu sync.Mutex
	// returns holds what the broker returned. The library puts a return there before it completes the confirm that
	// follows it, and there can't be more of them than slots.
	returns <-chan amqp.Return
	// awaited finds messages by the id that a return carries. Ids may repeat: the others follow
	// by next.
	awaited map[string]*pending
}

// pending is a message that awaits its confirm.
type pending struct {
	window      *window
	declaration *declaration
	id          string
	size        int
	confirm     *amqp.DeferredConfirmation
	// returned is the broker's reason for returning the message, next another with the same id;
	// guarded by window.mu.
	returned string
	next     *pending
}

type verdict int

const (
	confirmed verdict = iota + 1
	returned
	refused
	undecided
)

func openWindow(s *session, size int) (*window, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("opening a channel: %w", plain(err))
	}
	w := &window{
		session: s,
		ch:      ch,
		closes:  ch.NotifyClose(make(chan *amqp.Error, 1)),
		slots:   make(chan struct{}, size),
		gone:    make(chan struct{}),
		returns: ch.NotifyReturn(make(chan amqp.Return, size)),
		awaited: map[string]*pending{},
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, fmt.Errorf("asking for confirms: %w", plain(err))
	}
	return w, nil
}

// fail says that the channel is lost.
func (w *window) fail(err error) {
	w.mu.Lock()
	n := 0
	for _, p := range w.awaited {
		for ; p != nil; p = p.next {
			n++
		}
	}
	w.mu.Unlock()
	w.err, w.alone = err, n <= 1
	close(w.gone)
}

// errConfirmed says that the caller can make room by settling a message of its own. Callers who send several would otherwise wait for
// each other's slots.
var errConfirmed = errors.New("a message of the caller's is confirmed")

// enter takes a slot. errLost means that the channel went before there was one, errConfirmed that own was closed.
func (w *window) enter(ctx, deadline context.Context, own <-chan struct{}) error {
	select {
	case w.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case w.slots <- struct{}{}:
		return nil
	case <-own:
		return errConfirmed
	case <-w.gone:
		return errLost
	case <-ctx.Done():
		return fmt.Errorf("not sent: the broker owes confirms for %d messages: %w", cap(w.slots), context.Cause(ctx))
	case <-deadline.Done():
		return fmt.Errorf("not sent: the broker owes confirms for %d messages: %w", cap(w.slots), context.Cause(deadline))
	}
}

// publish writes a message; the caller has a slot. The wire below never blocks.
func (w *window) publish(m amqp.Publishing, d *declaration) (*pending, error) {
	p := &pending{window: w, declaration: d, id: m.MessageId, size: len(m.Body)}
	w.mu.Lock()
	p.next, w.awaited[p.id] = w.awaited[p.id], p
	w.mu.Unlock()
	var err error
	p.confirm, err = w.ch.PublishWithDeferredConfirm(d.route.exchange, d.route.publishKey, true, false, m)
	if err != nil {
		w.mu.Lock()
		w.leave(p)
		w.mu.Unlock()
		return nil, err
	}
	return p, nil
}

// finish says what became of a message whose confirm is complete, and gives its slot back.
func (w *window) finish(p *pending) (verdict, error) {
	// The library completes all confirms of a lost channel as negative ones.
	lost := !p.confirm.Acked() && w.ch.IsClosed()
	if lost {
		<-w.gone
	}
	w.mu.Lock()
	w.collect()
	w.leave(p)
	reason := p.returned
	w.mu.Unlock()
	switch {
	case lost:
		return undecided, w.err
	case !p.confirm.Acked():
		return refused, nil
	case reason != "":
		return returned, errors.New(reason)
	default:
		return confirmed, nil
	}
}

// collect marks what came back. A return names its message only by what the message carried: of several with the same id on the
// same way all are marked, which at worst sends one twice.
func (w *window) collect() {
	for {
		select {
		case r, ok := <-w.returns:
			if !ok {
				w.returns = nil
				return
			}
			for p := w.awaited[r.MessageId]; p != nil; p = p.next {
				if p.declaration.route.exchange == r.Exchange && p.declaration.route.publishKey == r.RoutingKey {
					p.returned = or(r.ReplyText, "returned")
				}
			}
		default:
			return
		}
	}
}

// leave takes a message off the books.
func (w *window) leave(p *pending) {
	first := w.awaited[p.id]
	at := &first
	for *at != p {
		at = &(*at).next
	}
	if *at = p.next; first == nil {
		delete(w.awaited, p.id)
	} else {
		w.awaited[p.id] = first
	}
	<-w.slots
}

// errAgain is the fate of a message that was on a channel which the broker closed because of something else: it is sent again.
var errAgain = errors.New("the channel was closed for another reason than this message")

// fate says what the loss of the channel means for a message that had no confirm. The broker closes a channel, with all that is on
// it, for a single message that it doesn't take, and names at most that message's exchange or size.
func (p *pending) fate(why error) error {
	w, undecided := p.window, fmt.Errorf("%w: %w", transports.ErrUndecided, why)
	e, ok := errors.AsType[*refusal](why)
	if !ok {
		return undecided
	}
	switch e.cause.Code {
	case amqp.NotFound:
		// Its exchange is declared again first, or found missing, and no other had a part in it.
		return errAgain
	case amqp.AccessRefused:
		if !e.names(p.declaration.route.exchange) {
			return errAgain
		}
	case amqp.PreconditionFailed:
		switch size := "message size "; {
		case w.alone, strings.Contains(e.cause.Reason, fmt.Sprint(size, p.size, " ")):
			return fmt.Errorf("%w: %w", transports.ErrUnsendable, why)
		case strings.Contains(e.cause.Reason, size):
			return errAgain
		}
	}
	return undecided
}
