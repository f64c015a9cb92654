package handlers

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports"
)

// Scope is what the router knows of one run of one message. It travels on the message's context; handlers and
// middleware reach it through the functions of this package and of router/middleware.
type Scope interface {
	// Description is what the handler's Describe said.
	Description() Description
	// Base is the context that the router gave to this run; middleware may have put child contexts on the message.
	Base() context.Context
	// Enqueued: see [Enqueued].
	Enqueued()
	// Refuse: see [Refuse].
	Refuse(msg *message.Message, reason Reason) ([]*message.Message, error)
	// Swallowed records an error that a middleware dealt with, for the reply.
	Swallowed(err error)
	// OnConfirmed: see [OnConfirmed].
	OnConfirmed(f func(context.Context) error)
}

// WithScope returns a context that carries s. The test packages call it.
func WithScope(ctx context.Context, s Scope) context.Context {
	x := transports.ExtraOf(ctx)
	x.Scope = s
	return transports.WithExtra(ctx, &x)
}

// ScopeFrom returns the scope that ctx carries, or nil.
func ScopeFrom(ctx context.Context) Scope {
	s, _ := transports.ExtraOf(ctx).Scope.(Scope)
	return s
}

// Enqueued says that the message has its place in an order that the handler owns, such as a session's queue: the next message of
// the same key may start. Call it at most once, from Handle. Without it the next starts when this one is settled.
func Enqueued(ctx context.Context) {
	if s := ScopeFrom(ctx); s != nil {
		s.Enqueued()
	}
}

// Described returns what the handler's Describe said of the message that ctx belongs to.
func Described(ctx context.Context) Description {
	if s := ScopeFrom(ctx); s != nil {
		return s.Description()
	}
	return Description{}
}

// Cancelled reports whether the context that the router gave to the message has ended: a stop, or a void delivery. Whatever
// is returned then counts for nothing, and the message stays unsettled. A deadline set by a middleware doesn't count.
func Cancelled(ctx context.Context) bool {
	if s := ScopeFrom(ctx); s != nil {
		return s.Base().Err() != nil
	}
	return ctx.Err() != nil
}

// Refuse asks the pipeline's handler to answer for msg without handling it. A handler that isn't a Refuser gives a permanent error.
func Refuse(msg *message.Message, reason Reason) ([]*message.Message, error) {
	if s := ScopeFrom(msg.Context()); s != nil {
		return s.Refuse(msg, reason)
	}
	return nil, Permanent(reasonError(reason))
}

type reasonError Reason

func (e reasonError) Error() string { return string(e) }

// OnConfirmed calls f when every output of the message that ctx belongs to is confirmed, and before the message is acked. If it returns an
// error, the message isn't acked: it stays with its source. f's context ends at the latest when the host's stop is over.
func OnConfirmed(ctx context.Context, f func(context.Context) error) {
	if s := ScopeFrom(ctx); s != nil {
		s.OnConfirmed(f)
	}
}

// SetDestination sends a produced message to a topic instead of the pipeline's `to`. It lives on the message's context:
// CopyWithContext keeps it, Copy doesn't.
func SetDestination(msg *message.Message, ref TopicRef) {
	x := transports.ExtraOf(msg.Context())
	x.Destination = ref
	msg.SetContext(transports.WithExtra(msg.Context(), &x))
}

// Destination returns what SetDestination said, or "".
func Destination(msg *message.Message) TopicRef {
	return transports.ExtraOf(msg.Context()).Destination
}

// NewMessage returns a produced message with an id of its own.
func NewMessage(payload []byte) *message.Message {
	id := uuid.NewString()
	msg := message.NewMessage(id, payload)
	msg.Metadata[transports.MessageID] = id
	return msg
}

// Forward returns a copy of msg for sending on: payload, id, and all metadata but what belongs to
// the delivery and to the broker (redelivered, source.*, expiration, headers of
// [transports.OfBroker]). Its typed headers are kept; the run that it belongs to, its destination
// and its context's end are not.
func Forward(msg *message.Message) *message.Message {
	out := msg.Copy()
	for key := range out.Metadata {
		if transports.OfDelivery(key) || key == transports.Expiration || transports.OfBroker(key) {
			delete(out.Metadata, key)
		}
	}
	x := transports.Extra{Headers: transports.ExtraOf(msg.Context()).Headers}
	out.SetContext(transports.WithExtra(context.WithoutCancel(msg.Context()), &x))
	return out
}
