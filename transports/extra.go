package transports

import (
	"context"
	"encoding"
)

// Extra is what the host adds to a Watermill message: the one value of ours that the message's context
// carries. It must not be modified once it is on a context; put a changed copy there instead.
type Extra struct {
	// Headers are the message's headers in the types of the transport that it came through; the metadata have them
	// as text. What their MarshalText writes, the transport can read again: see [KeptHeaders].
	Headers encoding.TextMarshaler
	// Destination is where a produced message goes. Empty: to the pipeline's `to`.
	Destination TopicRef
	// Scope and Journal belong to the run that handles the message. Package handlers has their types.
	Scope, Journal any
}

type extraKey struct{}

// IsExtraKey reports whether a context's Value is asked for the [Extra]. A context type of the host's
// that answers it saves an allocation; everybody else uses [WithExtra].
func IsExtraKey(key any) bool {
	_, ok := key.(extraKey)
	return ok
}

// WithExtra returns a context that carries x.
func WithExtra(ctx context.Context, x *Extra) context.Context {
	return context.WithValue(ctx, extraKey{}, x)
}

// ExtraOf returns what ctx carries; it is empty if ctx carries none.
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

// KeptHeaders are headers as their MarshalText wrote them. To restore a message that was kept outside of
// the host, put them on its context with [WithHeaders].
type KeptHeaders []byte

// MarshalText returns them as they are.
func (h KeptHeaders) MarshalText() ([]byte, error) { return h, nil }
