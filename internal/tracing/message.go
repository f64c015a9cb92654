package tracing

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/transports"
)

// carrier reads and writes the trace context in a message's metadata.
type carrier message.Metadata

func (c carrier) Get(key string) string { return c[transports.HeaderPrefix+key] }

func (c carrier) Set(key, value string) { c[transports.HeaderPrefix+key] = value }

// Keys implements propagation.TextMapCarrier.
func (carrier) Keys() []string { return w3c.Fields() }

var w3c propagation.TraceContext

// Extract returns ctx with the trace context of m, if m has one.
func Extract(ctx context.Context, m message.Metadata) context.Context {
	return w3c.Extract(ctx, carrier(m))
}

// Inject sets the trace context of m to the span of ctx.
func Inject(ctx context.Context, m message.Metadata) {
	delete(m, transports.TraceState)
	w3c.Inject(ctx, carrier(m))
}

// Fail marks a span as failed.
func Fail(span trace.Span, why string) { span.SetStatus(codes.Error, why[:min(len(why), maxText)]) }
