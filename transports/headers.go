package transports

import (
	"context"
	"encoding"
)

type headersKey struct{}

// WithHeaders returns a context that carries a message's headers in the types of the transport that it came through; the metadata have
// them as text. What their MarshalText writes, the transport can read again: see [KeptHeaders].
func WithHeaders(ctx context.Context, h encoding.TextMarshaler) context.Context {
	return context.WithValue(ctx, headersKey{}, h)
}

// HeadersFrom returns the headers that ctx carries, or nil.
func HeadersFrom(ctx context.Context) encoding.TextMarshaler {
	h, _ := ctx.Value(headersKey{}).(encoding.TextMarshaler)
	return h
}

// KeptHeaders are headers as their MarshalText wrote them. Whoever kept a message outside of the host puts them on the context of the message
// that it makes of it.
type KeptHeaders []byte

// MarshalText returns them as they are.
func (h KeptHeaders) MarshalText() ([]byte, error) { return h, nil }
