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

// beginRequest starts the run of a request.
func (s *session) beginRequest(l line) error {
	run := newScope(s.values, s.handler, time.Duration(l.remaining)*time.Millisecond)
	s.mu.Lock()
	_, exists := s.running[l.id]
	if !exists {
		s.running[l.id] = run
	}
	if exists || s.over {
		run.end()
	}
	s.mu.Unlock()
	if exists {
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

// worker runs one request, and then further ones. A goroutine is reused because the stack of a new
// one has to grow first.
func (s *session) worker(first started) {
	s.runRequest(first)
	for r := range s.hand {
		s.runRequest(r)
	}
}

// runRequest handles a request and responds, even if the handler ends the goroutine.
func (s *session) runRequest(r started) {
	response := buffers.Get().(*[]byte)
	defer func() {
		s.mu.Lock()
		delete(s.running, r.l.id)
		s.mu.Unlock()
		if err := s.out.WriteLines(*response); err != nil {
			// The host has ended. Standard input ends, too.
			s.cancelRuns()
		}
		recycleBuffer(response)
		r.run.end()
		s.work.Done()
	}()
	s.handle(r.run, r.l, response)
}

// buffers has the buffers for responses.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func recycleBuffer(b *[]byte) {
	if cap(*b) <= stdio.MaxKept {
		buffers.Put(b)
	}
}

// cancelRequest cancels a request if it is running.
func (s *session) cancelRequest(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if run, ok := s.running[id]; ok {
		run.end()
	}
}

// panicError is the error for a panic in a handler, as in a host.
type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// handle calls the handler as the router does, and makes the response line.
func (s *session) handle(run *scope, l line, response *[]byte) {
	answer := func(produced []*message.Message, err error) {
		*response = appendResponse((*response)[:0], l.id, produced, err)
		if len(*response)-1 > s.host.MaxLine {
			*response = appendResponse((*response)[:0], l.id, nil, handlers.Permanent(fmt.Errorf("the response has %d bytes, and the host's limit is %d", len(*response)-1, s.host.MaxLine)))
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
		err = handlers.Permanent(hostOnly("the handler waits for the confirms of its output"))
	}
	answer(produced, err)
	returned = true
}
