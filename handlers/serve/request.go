package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/stdio"
)

// request begins with a message.
func (s *session) request(l line) error {
	ctx, cancel := context.WithCancel(s.life)
	s.mu.Lock()
	_, twice := s.running[l.id]
	s.running[l.id] = cancel
	s.mu.Unlock()
	if twice {
		cancel()
		return fmt.Errorf("a second request with the id %d", l.id)
	}
	s.work.Go(func() {
		defer cancel()
		response := s.handle(ctx, l)
		s.mu.Lock()
		delete(s.running, l.id)
		s.mu.Unlock()
		if err := s.out.Put(*response); err != nil {
			// A host that is gone is seen at the end of standard input, too.
			s.end()
		}
		recycle(response)
	})
	return nil
}

// buffers are those of responses.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func recycle(b *[]byte) {
	if cap(*b) <= stdio.MostKept {
		buffers.Put(b)
	}
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

// handle calls the handler as the router does: its context ends with ctx, which counts as cancelled, and after its time, which doesn't. It returns the line of the response.
func (s *session) handle(ctx context.Context, l line) (response *[]byte) {
	response = buffers.Get().(*[]byte)
	answer := func(produced []*message.Message, err error) {
		*response = appendResponse((*response)[:0], l.id, produced, err)
		if len(*response)-1 > s.host.MaxLine {
			*response = appendResponse((*response)[:0], l.id, nil, handlers.Permanent(fmt.Errorf("the response has %d bytes, and the host takes %d", len(*response)-1, s.host.MaxLine)))
		}
	}
	returned := false
	defer func() {
		if v := recover(); v != nil {
			s.logger.Error("panic while handling a message", "uuid", l.msg.UUID, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			answer(nil, panicError{v})
		} else if !returned {
			answer(nil, errors.New("the handler's goroutine ended"))
		}
	}()
	run := newScope(ctx, s.handler, l.msg)
	timed, stop := context.WithTimeout(run.base, time.Duration(l.remaining)*time.Millisecond)
	defer stop()
	l.msg.SetContext(timed)
	produced, err := s.handler.Handle(l.msg)
	if err == nil && run.awaited.Load() {
		err = handlers.Permanent(lacks("the handler wants to be told when what it produced is confirmed"))
	}
	answer(produced, err)
	returned = true
	return response
}
