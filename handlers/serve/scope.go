package serve

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
)

// scope is one run of one message. What the router would do for it, the host does on its side, or nobody does.
type scope struct {
	handler     handlers.Handler
	description handlers.Description
	base        context.Context
	awaited     atomic.Bool
}

// newScope puts a run on a message that ends with ctx.
func newScope(ctx context.Context, handler handlers.Handler, msg *message.Message) *scope {
	s := &scope{handler: handler}
	s.base = handlers.WithScope(ctx, s)
	if d, ok := handler.(handlers.Describer); ok {
		// An error means that nothing can be said of it; Handle will find the same.
		if description, err := d.Describe(msg); err == nil {
			s.description = description
		}
		return s
	}
	s.description = handlers.Description{Key: msg.Metadata[transports.Device], ID: msg.Metadata[transports.MessageID]}
	return s
}

func (s *scope) Description() handlers.Description { return s.description }
func (s *scope) Base() context.Context             { return s.base }
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
