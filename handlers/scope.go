package handlers

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/transports"
)

// Scope is what the router knows about one run of one message. It is stored in the message's
// context. Handlers and middleware reach it through the functions of this package and of
// router/middleware.
type Scope interface {
	// Description: see [Described].
	Description() Description
	// Base is the context that the router gave to this run. The message's own context may be a
	// child of Base, which a middleware made.
	Base() context.Context
	// Enqueued: see [Enqueued].
	Enqueued()
	// Refuse: see [Refuse].
	Refuse(msg *message.Message, reason Reason) ([]*message.Message, error)
	// Swallowed records an error that a middleware handled, for the reply.
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

// Enqueued records that the message has its place in an order that the handler owns, such as a
// session's queue. The next message of the same key may then start; without this call it starts
// when this message is settled. Call Enqueued at most once, from Handle.
func Enqueued(ctx context.Context) {
	if s := ScopeFrom(ctx); s != nil {
		s.Enqueued()
	}
}

// Described returns the handler's [Description] of the message that ctx belongs to.
func Described(ctx context.Context) Description {
	if s := ScopeFrom(ctx); s != nil {
		return s.Description()
	}
	return Description{}
}

// Cancelled reports whether the router has cancelled the message's run, because the host stops or
// the delivery is void. The router then ignores what the handler returns, and the message stays
// unsettled. A deadline that a middleware has set doesn't count.
func Cancelled(ctx context.Context) bool {
	if s := ScopeFrom(ctx); s != nil {
		return s.Base().Err() != nil
	}
	return ctx.Err() != nil
}

// Refuse returns what the pipeline's handler produces for msg instead of handling it: see
// [Refuser]. If the handler isn't a Refuser, the error is permanent.
func Refuse(msg *message.Message, reason Reason) ([]*message.Message, error) {
	if s := ScopeFrom(msg.Context()); s != nil {
		return s.Refuse(msg, reason)
	}
	return nil, Permanent(reasonError(reason))
}

type reasonError Reason

func (e reasonError) Error() string { return string(e) }

// OnConfirmed registers f, which the router calls after every output of the message that ctx
// belongs to is confirmed and before the message is acked. If f returns an error, the message
// isn't acked and stays with its source. The context of f ends no later than the host's stop.
func OnConfirmed(ctx context.Context, f func(context.Context) error) {
	if s := ScopeFrom(ctx); s != nil {
		s.OnConfirmed(f)
	}
}

// SetDestination sets the topic that a produced message goes to instead of the pipeline's `to`. It
// is stored in the message's context: CopyWithContext keeps it, Copy doesn't.
func SetDestination(msg *message.Message, ref TopicRef) {
	x := transports.ExtraOf(msg.Context())
	x.Destination = ref
	msg.SetContext(transports.WithExtra(msg.Context(), &x))
}

// Destination returns the topic of [SetDestination], or "".
func Destination(msg *message.Message) TopicRef {
	return transports.ExtraOf(msg.Context()).Destination
}

// NewMessage returns a produced message with a new id.
func NewMessage(payload []byte) *message.Message {
	id := uuid.NewString()
	msg := message.NewMessage(id, payload)
	msg.Metadata[transports.MessageID] = id
	return msg
}

// Forward returns a copy of msg to publish. The copy has the payload, the id, the typed headers
// and the metadata. It doesn't have the metadata of the delivery and of the broker (redelivered,
// source.*, expiration, the headers of [transports.OfBroker]), the destination, or the run. Its
// context has the values of msg's context and never ends.
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
