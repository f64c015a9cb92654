package serve

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

// request begins with a message.
func (s *session) request(l line) error {
	if l.ID < 1 || l.ID > largestID {
		return fmt.Errorf("a request with the id %d", l.ID)
	}
	msg, err := l.Message.message()
	if err != nil {
		return fmt.Errorf("request %d: %w", l.ID, err)
	}
	ctx, cancel := context.WithCancel(s.life)
	s.mu.Lock()
	_, twice := s.running[l.ID]
	s.running[l.ID] = cancel
	s.mu.Unlock()
	if twice {
		cancel()
		return fmt.Errorf("a second request with the id %d", l.ID)
	}
	s.work.Go(func() {
		defer cancel()
		produced, failure := s.handle(ctx, msg, time.Duration(l.RemainingMS)*time.Millisecond)
		s.mu.Lock()
		delete(s.running, l.ID)
		s.mu.Unlock()
		s.respond(l.ID, produced, failure)
	})
	return nil
}

// cancel ends a request if it runs.
func (s *session) cancel(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end, ok := s.running[id]; ok {
		end()
	}
}

// panicError is what a panic in a handler becomes, as in a host.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// handle calls the handler as the router does: its context ends with ctx, which counts as cancelled, and after its time, which doesn't.
func (s *session) handle(ctx context.Context, msg *message.Message, remaining time.Duration) (produced []outMessage, err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil {
			s.logger.Error("panic while handling a message", "uuid", msg.UUID, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			produced, err = nil, panicError{v}
		} else if !returned {
			produced, err = nil, errors.New("the handler's goroutine ended")
		}
	}()
	run := newScope(ctx, s.handler, msg)
	timed, stop := context.WithTimeout(run.base, remaining)
	defer stop()
	msg.SetContext(timed)
	msgs, err := s.handler.Handle(msg)
	if err == nil && run.awaited.Load() {
		err = handlers.Permanent(lacks("the handler wants to be told when what it produced is confirmed"))
	}
	if err == nil {
		produced = make([]outMessage, len(msgs))
		for i, m := range msgs {
			produced[i] = outgoing(m)
		}
	}
	returned = true
	return produced, err
}

// outgoing is a produced message as it goes to the host.
func outgoing(m *message.Message) outMessage {
	out := outMessage{ID: m.UUID, To: string(handlers.Destination(m)), Metadata: m.Metadata}
	if utf8.Valid(m.Payload) {
		out.Payload = string(m.Payload)
	} else {
		out.PayloadB64 = base64.StdEncoding.EncodeToString(m.Payload)
	}
	return out
}

// respond tells what became of a message.
func (s *session) respond(id int64, produced []outMessage, failure error) {
	r := response{Type: "response", ID: id, Messages: produced}
	if failure != nil {
		r.Error = &wireError{handlers.KindOf(failure).String(), failure.Error(), handlers.RetryAfterOf(failure).Milliseconds()}
	}
	err := s.out.writeWithin(r, s.host.MaxLine)
	if errors.Is(err, errTooLong) {
		err = s.out.write(response{Type: "response", ID: id, Error: &wireError{Kind: "permanent", Text: err.Error()}})
	}
	if err != nil && s.life.Err() == nil {
		// A host that is gone is seen at the end of standard input.
		s.end()
	}
}
