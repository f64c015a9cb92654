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

// scope is one run of one message. What the router would do for it, the host does on its side, or nobody does.
type scope struct {
	handler     handlers.Handler
	description handlers.Description
	extra       transports.Extra
	awaited     atomic.Bool

	values   context.Context
	deadline time.Time

	mu   sync.Mutex
	over bool
	// timed and base are made when they are asked for, which most handlers don't.
	timed, base         context.Context
	stopTimed, stopBase context.CancelFunc
}

// newScope begins the time of a run.
func newScope(values context.Context, handler handlers.Handler, remaining time.Duration) *scope {
	s := &scope{handler: handler, values: values, deadline: time.Now().Add(remaining)}
	s.extra.Scope = s
	return s
}

// end is the end of the run, or of the interest in it.
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

// Base is over when the run is, and not when its time is.
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

// timer is over when the run is, or its time.
func (s *scope) timer() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timed == nil {
		if s.timed, s.stopTimed = context.WithDeadline(s.values, s.deadline); s.over {
			s.stopTimed()
		}
	}
	return s.timed
}

// runContext is the context of a run's message. A timer runs only for those who look at it.
type runContext struct{ *scope }

func (c runContext) Deadline() (time.Time, bool) { return c.deadline, true }
func (c runContext) Done() <-chan struct{}       { return c.timer().Done() }
func (c runContext) Err() error                  { return c.timer().Err() }

// Value also answers package context, which asks by a key of its own for what ends.
func (c runContext) Value(key any) any {
	if transports.IsExtraKey(key) {
		return &c.extra
	}
	return c.timer().Value(key)
}

// describe asks the handler about the message.
func (s *scope) describe(msg *message.Message) {
	if d, ok := s.handler.(handlers.Describer); ok {
		// An error means that nothing can be said of it; Handle will find the same.
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

// OnConfirmed notes that the handler counts on what can't come.
func (s *scope) OnConfirmed(func(context.Context) error) { s.awaited.Store(true) }
