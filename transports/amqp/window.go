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

// The confirm window bounds how many published messages may wait for their confirms.
//
// A confirm window is one channel in confirm mode. A message takes a slot before it is written. It
// gives the slot back when its confirm has come, or when the channel is lost. A lost channel is
// never opened again: its owner opens another confirm window.
//
// A message passes through these states:
//
//   - It waits for a slot (takeSlot).
//   - It is pending from publish until finishMessage: it has a slot and is in awaited.
//   - It is finished with a verdict. It is confirmed, returned (no queue took it), refused (a
//     negative confirm), or undecided (the channel was lost before the confirm came).
//
// A broker closes a channel or a connection because of a single message that it doesn't accept,
// and often doesn't say which one. So after such a loss all pending messages are suspects. The
// next confirm window sends one message at a time until no suspect is left or suspectTime has
// passed. If that channel is lost too, the only pending message is the cause, and it is
// unsendable.
//
// Invariants: slots has one token for each pending message, and one for each caller between
// takeSlot and publish. While there are suspects, further tokens fill all slots but one. Every
// pending message is in awaited. mu guards awaited, suspects, the returns and the fields of
// pending messages. No other lock is taken and no call blocks while mu is locked, so there is no
// lock order.

// confirmWindow is a channel in confirm mode with a bound on the messages that wait for confirms.
type confirmWindow struct {
	session   *session
	marshaler *marshaler
	ch        *amqp.Channel
	closes    <-chan *amqp.Error
	// slots has one token for each slot that is taken.
	slots chan struct{}
	// lost is closed when the channel is lost. From then on err says why. onlyOne says that at
	// most one message was pending, and hadSuspects says that there were suspects.
	lost        chan struct{}
	err         error
	onlyOne     bool
	hadSuspects bool

	mu sync.Mutex
	// suspects are the ids of messages that were pending when the broker closed an earlier channel
	// or connection. Any of them may be the cause. While there are suspects, and until
	// suspectUntil, one message is sent at a time.
	suspects     map[string]struct{}
	suspectUntil time.Time
	// returns has the messages that the broker returned. The library puts a return there before it
	// completes the confirm of the same message. There can't be more returns than slots.
	returns <-chan amqp.Return
	// awaited finds pending messages by the id that a return carries. Messages with the same id
	// are linked by next.
	awaited map[string]*pending
}

// pending is a message that was written and that waits for its confirm.
type pending struct {
	confirmWindow *confirmWindow
	declaration   *declaration
	id            string
	size          int
	confirm       *amqp.DeferredConfirmation
	// returned is the broker's reason for returning the message. next is another message with the
	// same id. Both are guarded by confirmWindow.mu.
	returned string
	next     *pending
}

// verdict says how a published message ended.
type verdict int

const (
	confirmed verdict = iota + 1
	returned
	refused
	undecided
)

// suspectTime is how long a confirm window waits for suspects. Their publishers normally send them
// again at once.
const suspectTime = 30 * time.Second

// openConfirmWindow opens a channel in confirm mode.
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

// markLost records that the channel is lost. It returns the ids of the messages that may be the
// cause.
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

// mayBlameMessage reports whether the broker closed a channel or connection because of a message
// without naming the message.
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

// errOwnConfirmed says that a message of the same caller is confirmed, so that the caller can free
// its slot. Callers with several messages would otherwise wait for each other's slots.
var errOwnConfirmed = errors.New("an earlier message of the caller is confirmed")

// takeSlot waits for a slot. It returns errLost if the channel was lost first, and errOwnConfirmed
// if own was closed first.
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
		return fmt.Errorf("not sent: %d messages wait for their confirms: %w", cap(w.slots), context.Cause(ctx))
	case <-deadline.Done():
		return fmt.Errorf("not sent: %d messages wait for their confirms: %w", cap(w.slots), context.Cause(deadline))
	}
}

// publish writes a message. The caller has taken a slot. It doesn't block, because the wire below
// buffers all writes.
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

// finishMessage frees the slot of a message whose confirm is complete, and returns the verdict.
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

// clearSuspect removes a message from the suspects. When none is left, all slots become free. The
// caller has locked mu.
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

// collectReturns marks the messages that the broker returned. A return identifies its message only
// by id, exchange and routing key. If several pending messages share these, all of them are
// marked. At worst one of them is then sent twice. The caller has locked mu.
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

// removePending removes a message from awaited and frees its slot. The caller has locked mu.
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

// errSendAgain says that the broker closed the channel for another reason than this message. The
// message is sent again.
var errSendAgain = errors.New("the channel was closed for another reason than this message")

// lossError returns the error for a message whose channel was lost before its confirm came. The
// broker closes a channel, with all its pending messages, because of a single message. It names at
// most the exchange or the size of that message.
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
		// The outbox declares the exchange again, or finds out that it is missing.
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
