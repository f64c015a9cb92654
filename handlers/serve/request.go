package serve

import (
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
	run := newScope(s.values, s.handler, time.Duration(l.remaining)*time.Millisecond)
	s.mu.Lock()
	_, twice := s.running[l.id]
	if !twice {
		s.running[l.id] = run
	}
	if twice || s.over {
		run.end()
	}
	s.mu.Unlock()
	if twice {
		return fmt.Errorf("a second request with the id %d", l.id)
	}
	s.work.Add(1)
	select {
	case s.hand <- started{run, l}:
	default:
		go s.worker(started{run, l})
	}
	return nil
}

// started is a request that has begun.
type started struct {
	run *scope
	l   line
}

// worker does one request, and then those that come while it waits: goroutines that are new have to grow first.
func (s *session) worker(first started) {
	s.do(first)
	for r := range s.hand {
		s.do(r)
	}
}

// do handles a request and responds, also if the handler ends the goroutine.
func (s *session) do(r started) {
	response := buffers.Get().(*[]byte)
	defer func() {
		s.mu.Lock()
		delete(s.running, r.l.id)
		s.mu.Unlock()
		if err := s.out.Put(*response); err != nil {
			// A host that is gone is seen at the end of standard input, too.
			s.end()
		}
		recycle(response)
		r.run.end()
		s.work.Done()
	}()
	s.handle(r.run, r.l, response)
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
	if run, ok := s.running[id]; ok {
		run.end()
	}
}

// panicError is what a panic in a handler becomes, as in a host.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// handle calls the handler as the router does, and makes the line of the response.
func (s *session) handle(run *scope, l line, response *[]byte) {
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
	run.describe(l.msg)
	l.msg.SetContext(runContext{run})
	produced, err := s.handler.Handle(l.msg)
	if err == nil && run.awaited.Load() {
		err = handlers.Permanent(lacks("the handler wants to be told when what it produced is confirmed"))
	}
	answer(produced, err)
	returned = true
}
