package serve

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// scope is one run of one message. The host does the router's work for the run; some of it has no
// effect here.
type scope struct {
	handler     handlers.Handler
	description handlers.Description
	extra       transports.Extra
	awaited     atomic.Bool

	values   context.Context
	deadline time.Time

	mu   sync.Mutex
	over bool
	// timed and base are made at their first use, because most handlers don't use them.
	timed, base         context.Context
	stopTimed, stopBase context.CancelFunc
}

// newScope begins a run, which may take the remaining time.
func newScope(values context.Context, handler handlers.Handler, remaining time.Duration) *scope {
	s := &scope{handler: handler, values: values, deadline: time.Now().Add(remaining)}
	s.extra.Scope = s
	return s
}

// end ends the contexts of the run, after it has ended or when the host doesn't need it any more.
func (s *scope) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, stop := range []context.CancelFunc{s.stopTimed, s.stopBase} {
		if stop != nil {
			stop()
		}
	}
}

// Base returns a context that ends with the run, and not with its deadline.
func (s *scope) Base() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		if s.base, s.stopBase = context.WithCancel(transports.WithExtra(s.values, &s.extra)); s.over {
			s.stopBase()
		}
	}
	return s.base
}

// withDeadline returns a context that ends with the run or its deadline.
func (s *scope) withDeadline() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timed == nil {
		if s.timed, s.stopTimed = context.WithDeadline(s.values, s.deadline); s.over {
			s.stopTimed()
		}
	}
	return s.timed
}

// runContext is the context of a run's message. Its timer starts only when the handler uses the
// context.
type runContext struct{ *scope }

func (c runContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c runContext) Done() <-chan struct{}       { return c.withDeadline().Done() }
func (c runContext) Err() error                  { return c.withDeadline().Err() }

// Value implements context.Context. Package context calls it, too, with a key of its own, to find
// the context that can be cancelled.
func (c runContext) Value(key any) any {
	if transports.IsExtraKey(key) {
		return &c.extra
	}
	return c.withDeadline().Value(key)
}

// describe sets the description of the message.
func (s *scope) describe(msg *message.Message) {
	if d, ok := s.handler.(handlers.Describer); ok {
		// Ignore an error: Handle will return it.
		if description, err := d.Describe(msg); err == nil {
			s.description = description
		}
		return
	}
	s.description = handlers.Description{Key: msg.Metadata[transports.Device], ID: msg.Metadata[transports.MessageID]}
}

func (s *scope) Description() handlers.Description { return s.description }
func (s *scope) Enqueued()                         {}
func (s *scope) Swallowed(error)                   {}

func (s *scope) Refuse(msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	if r, ok := s.handler.(handlers.Refuser); ok {
		return r.Refuse(msg.Context(), msg, reason)
	}
	return nil, handlers.Permanent(errors.New(string(reason)))
}

// OnConfirmed records that the handler waits for confirms, which a process doesn't get.
func (s *scope) OnConfirmed(func(context.Context) error) { s.awaited.Store(true) }
