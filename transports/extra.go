package transports

import (
	"context"
	"encoding"
)

// Extra has what the host adds to a Watermill message. It is the only value of the host in the
// message's context. Don't modify an Extra that is in a context: make a changed copy, and a new
// context with the copy.
type Extra struct {
	// Headers has the message's headers in the types of the transport that delivered it; the
	// metadata have them as text. The transport can read what their MarshalText writes: see
	// [KeptHeaders].
	Headers encoding.TextMarshaler
	// Destination is where a produced message goes. Empty means the pipeline's `to`.
	Destination TopicRef
	// Scope and Journal belong to the run of the message. Package handlers has their types.
	Scope, Journal any
}

type extraKey struct{}

// IsExtraKey reports whether key is the context key of the [Extra]. The host's own context types
// use it to save an allocation. All other code uses [WithExtra].
func IsExtraKey(key any) bool {
	_, ok := key.(extraKey)
	return ok
}

// WithExtra returns a context that carries x.
func WithExtra(ctx context.Context, x *Extra) context.Context {
	return context.WithValue(ctx, extraKey{}, x)
}

// ExtraOf returns the [Extra] in ctx, or an empty one.
func ExtraOf(ctx context.Context) Extra {
	if x, ok := ctx.Value(extraKey{}).(*Extra); ok {
		return *x
	}
	return Extra{}
}

// WithHeaders returns a context that carries a message's typed headers.
func WithHeaders(ctx context.Context, h encoding.TextMarshaler) context.Context {
	x := ExtraOf(ctx)
	x.Headers = h
	return WithExtra(ctx, &x)
}

// KeptHeaders has headers in the form that their MarshalText wrote. To restore a message that was
// stored outside the host, put them into its context with [WithHeaders].
type KeptHeaders []byte

// MarshalText returns the headers unchanged.
func (h KeptHeaders) MarshalText() ([]byte, error) { return h, nil }
