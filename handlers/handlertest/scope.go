package handlertest

import (
	"context"
	"errors"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

// Scope is one run of one message. It records the calls of its methods. It is safe for concurrent
// use.
type Scope struct {
	description handlers.Description
	handler     handlers.Handler
	base        context.Context

	mu        sync.Mutex
	enqueued  int
	swallowed []error
	refused   []handlers.Reason
	confirmed []func(context.Context) error
}

var _ handlers.Scope = (*Scope)(nil)

// NewScope returns a run that ends with ctx. h refuses messages; it may be nil.
func NewScope(ctx context.Context, d handlers.Description, h handlers.Handler) *Scope {
	s := &Scope{description: d, handler: h}
	s.base = handlers.WithScope(ctx, s)
	return s
}

// Description returns the argument of NewScope.
func (s *Scope) Description() handlers.Description { return s.description }

// Base returns the context for the run's message.
func (s *Scope) Base() context.Context { return s.base }

// Enqueued counts its calls.
func (s *Scope) Enqueued() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueued++
}

// Refuse records the reason and calls the handler's Refuse.
func (s *Scope) Refuse(msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	s.mu.Lock()
	s.refused = append(s.refused, reason)
	s.mu.Unlock()
	if r, ok := s.handler.(handlers.Refuser); ok {
		return r.Refuse(msg.Context(), msg, reason)
	}
	return nil, handlers.Permanent(refusal(reason))
}

type refusal handlers.Reason

func (r refusal) Error() string { return string(r) }

// Swallowed records err.
func (s *Scope) Swallowed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.swallowed = append(s.swallowed, err)
}

// OnConfirmed stores f for Confirm.
func (s *Scope) OnConfirmed(f func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.confirmed = append(s.confirmed, f)
}

// Confirm calls the functions that OnConfirmed has stored, once, as the router does when every
// output is confirmed. If Confirm returns an error, the router doesn't ack the message.
func (s *Scope) Confirm(ctx context.Context) error {
	s.mu.Lock()
	calls := s.confirmed
	s.confirmed = nil
	s.mu.Unlock()
	var errs []error
	for _, f := range calls {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

// Placed returns how often Enqueued was called.
func (s *Scope) Placed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enqueued
}

// Errors returns the errors that Swallowed has recorded.
func (s *Scope) Errors() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.swallowed...)
}

// Refusals returns the reasons of all refusals.
func (s *Scope) Refusals() []handlers.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]handlers.Reason(nil), s.refused...)
}
