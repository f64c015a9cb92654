package amqp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/pentrough/pentrough/transports"
)

// window is one channel in confirm mode with a bound on what awaits its confirm.
type confirmWindow struct {
	session   *session
	marshaler *marshaler
	ch        *amqp.Channel
	closes    <-chan *amqp.Error
	// slots holds one token a message that awaits its confirm.
	slots chan struct{}
	// gone is closed when the channel is lost; err says why, and alone that no more than one message awaited its confirm.
	lost    chan struct{}
	err     error
	onlyOne bool
	// careful, as alone, says that there were suspects at the end.
	hadSuspects bool

	mu sync.Mutex
	// suspects are the ids of messages one of which made the broker close an earlier channel or connection. As long as there
	// are any, until the time in trust, each message is sent alone.
	suspects     map[string]struct{}
	suspectUntil time.Time
	// returns holds what the broker returned. The library puts a return there before it completes the confirm that
	// follows it, and there can't be more of them than slots.
	returns <-chan amqp.Return
	// awaited finds messages by the id that a return carries. Ids may repeat: the others follow
	// by next.
	awaited map[string]*pending
}

// pending is a message that awaits its confirm.
type pending struct {
	confirmWindow *confirmWindow
	declaration   *declaration
	id            string
	size          int
	confirm       *amqp.DeferredConfirmation
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

// suspicion is how long suspects are waited for. They come again as soon as their publishers try again.
const suspectTime = 30 * time.Second

// openWindow opens a channel.
func openConfirmWindow(m *marshaler, s *session, size int, suspects map[string]struct{}) (*confirmWindow, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("opening a channel: %w", plainError(err))
	}
	w := &confirmWindow{
		session:      s,
		marshaler:    m,
		ch:           ch,
		closes:       ch.NotifyClose(make(chan *amqp.Error, 1)),
		slots:        make(chan struct{}, size),
		lost:         make(chan struct{}),
		suspects:     suspects,
		suspectUntil: time.Now().Add(suspectTime),
		returns:      ch.NotifyReturn(make(chan amqp.Return, size)),
		awaited:      map[string]*pending{},
	}
	if len(suspects) > 0 {
		for range size - 1 {
			w.slots <- struct{}{}
		}
	}
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, fmt.Errorf("asking for confirms: %w", plainError(err))
	}
	return w, nil
}

// fail says that the channel is lost. It returns the ids of the messages that are suspected of that.
func (w *confirmWindow) markLost(err error) (suspects map[string]struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	suspects = map[string]struct{}{}
	for id, p := range w.awaited {
		suspects[id] = struct{}{}
		for ; p != nil; p = p.next {
			n++
		}
	}
	w.hadSuspects = len(w.suspects) > 0
	w.err, w.onlyOne = err, n <= 1
	close(w.lost)
	switch {
	case w.hadSuspects:
		return maps.Clone(w.suspects)
	case mayBlameMessage(err):
		return suspects
	default:
		return nil
	}
}

// blames says whether the broker closed a channel or the connection for something that was sent, without a word that
// tells what.
func mayBlameMessage(err error) bool {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		return false
	}
	switch e.cause.Code {
	case amqp.PreconditionFailed, amqp.ContentTooLarge, amqp.FrameError, amqp.SyntaxError, amqp.CommandInvalid, amqp.UnexpectedFrame,
		amqp.NotImplemented, amqp.InternalError:
		return true
	}
	return false
}

// errConfirmed says that the caller can make room by settling a message of its own. Callers who send several would otherwise wait for
// each other's slots.
var errOwnConfirmed = errors.New("a message of the caller's is confirmed")

// enter takes a slot. errLost means that the channel went before there was one, errConfirmed that own was closed.
func (w *confirmWindow) takeSlot(ctx, deadline context.Context, own <-chan struct{}) error {
	select {
	case w.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case w.slots <- struct{}{}:
		return nil
	case <-own:
		return errOwnConfirmed
	case <-w.lost:
		return errLost
	case <-ctx.Done():
		return fmt.Errorf("not sent: the broker owes confirms for %d messages: %w", cap(w.slots), context.Cause(ctx))
	case <-deadline.Done():
		return fmt.Errorf("not sent: the broker owes confirms for %d messages: %w", cap(w.slots), context.Cause(deadline))
	}
}

// publish writes a message; the caller has a slot. The wire below never blocks.
func (w *confirmWindow) publish(m amqp.Publishing, d *declaration) (*pending, error) {
	w.marshaler.fitFrame(&m, w.session.conn.Config.FrameSize)
	p := &pending{confirmWindow: w, declaration: d, id: m.MessageId, size: len(m.Body)}
	w.mu.Lock()
	p.next, w.awaited[p.id] = w.awaited[p.id], p
	w.mu.Unlock()
	var err error
	p.confirm, err = w.ch.PublishWithDeferredConfirm(d.route.exchange, d.route.publishKey, true, false, m)
	if err != nil {
		w.mu.Lock()
		w.removePending(p)
		w.mu.Unlock()
		return nil, err
	}
	return p, nil
}

// finish says what became of a message whose confirm is complete, and gives its slot back.
func (w *confirmWindow) finishMessage(p *pending) (verdict, error) {
	// The library completes all confirms of a lost channel as negative ones.
	lost := !p.confirm.Acked() && w.ch.IsClosed()
	if lost {
		<-w.lost
	}
	w.mu.Lock()
	w.collectReturns()
	w.removePending(p)
	reason := p.returned
	w.clearSuspect(p.id)
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

// clear takes a message off the suspects. After the last one the window has all its slots. The lock is held.
func (w *confirmWindow) clearSuspect(id string) {
	if len(w.suspects) == 0 {
		return
	}
	delete(w.suspects, id)
	if time.Now().After(w.suspectUntil) {
		w.suspects = nil
	}
	if len(w.suspects) == 0 {
		for range cap(w.slots) - 1 {
			<-w.slots
		}
	}
}

// collect marks what came back. A return names its message only by what the message carried: of several with the same id on the
// same way all are marked, which at worst sends one twice.
func (w *confirmWindow) collectReturns() {
	for {
		select {
		case r, ok := <-w.returns:
			if !ok {
				w.returns = nil
				return
			}
			for p := w.awaited[r.MessageId]; p != nil; p = p.next {
				if p.declaration.route.exchange == r.Exchange && p.declaration.route.publishKey == r.RoutingKey {
					p.returned = orDefault(r.ReplyText, "returned")
				}
			}
		default:
			return
		}
	}
}

// leave takes a message off the books.
func (w *confirmWindow) removePending(p *pending) {
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
var errSendAgain = errors.New("the channel was closed for another reason than this message")

// fate says what the loss of the channel means for a message that had no confirm. The broker closes a channel, with all that is on
// it, for a single message that it doesn't take, and names at most that message's exchange or size.
func (p *pending) lossError(why error) error {
	w, undecided := p.confirmWindow, fmt.Errorf("%w: %w", transports.ErrUndecided, why)
	e, ok := errors.AsType[*refusal](why)
	if !ok {
		return undecided
	}
	if w.hadSuspects && w.onlyOne && mayBlameMessage(why) {
		return fmt.Errorf("%w: %w", transports.ErrUnsendable, why)
	}
	switch e.cause.Code {
	case amqp.NotFound:
		// Its exchange is declared again first, or found missing, and no other had a part in it.
		return errSendAgain
	case amqp.AccessRefused:
		if !e.namesExchange(p.declaration.route.exchange) {
			return errSendAgain
		}
	case amqp.PreconditionFailed:
		switch size := "message size "; {
		case w.onlyOne, strings.Contains(e.cause.Reason, fmt.Sprint(size, p.size, " ")):
			return fmt.Errorf("%w: %w", transports.ErrUnsendable, why)
		case strings.Contains(e.cause.Reason, size):
			return errSendAgain
		}
	}
	return undecided
}
