package router

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/tracing"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// Attributes of spans in addition to those of OpenTelemetry's conventions.
const (
	pipelineKey    = attribute.Key("pentrough.pipeline")
	idKey          = attribute.Key("pentrough.id")
	keyKey         = attribute.Key("pentrough.key")
	deviceKey      = attribute.Key("pentrough.device")
	stateKey       = attribute.Key("pentrough.state")
	outcomeKey     = attribute.Key("pentrough.outcome")
	attemptKey     = attribute.Key("pentrough.attempt")
	redeliveredKey = attribute.Key("pentrough.redelivered")
	waitedKey      = attribute.Key("pentrough.waited_ms")
)

// pipelineTracing makes the spans of one pipeline. Without tracing it is nil. The methods of a nil
// pipelineTracing and of a nil runTrace do nothing, so that callers need no check.
type pipelineTracing struct {
	tracer trace.Tracer
	// spanName and common are the name and the attributes of all spans of runs.
	spanName string
	common   []attribute.KeyValue
	// systems has the attribute messaging.system of each transport, by the transport's name.
	systems  map[string]attribute.KeyValue
	pipeline attribute.KeyValue
}

// runTrace is the span of one run.
type runTrace struct {
	span trace.Span
	// attempt counts the runs of a delivery.
	attempt int
	// calls counts the calls of the handler in this run.
	calls int
	// arrived is when the delivery arrived.
	arrived time.Time
}

func newPipelineTracing(c Config, p Pipeline) *pipelineTracing {
	if c.Tracer == nil {
		return nil
	}
	t := &pipelineTracing{
		tracer: c.Tracer, spanName: p.Name + " process", systems: map[string]attribute.KeyValue{}, pipeline: pipelineKey.String(p.Name),
	}
	for _, transport := range c.Transports {
		// The conventions name the broker, not the protocol.
		if t.systems[transport.Name] = semconv.MessagingSystemKey.String(transport.Type); transport.Type == "amqp" {
			t.systems[transport.Name] = semconv.MessagingSystemRabbitMQ
		}
	}
	t.common = append(t.topicAttributes(p.From), t.pipeline, semconv.MessagingOperationName("process"), semconv.MessagingOperationTypeProcess)
	return t
}

// topicAttributes returns the attributes of a topic.
func (t *pipelineTracing) topicAttributes(ref transports.TopicRef) []attribute.KeyValue {
	name, topic, err := ref.Split()
	if err != nil {
		return nil
	}
	return []attribute.KeyValue{t.systems[name], semconv.MessagingDestinationName(topic)}
}

// newRunTrace returns the trace of the next run of an entry. The caller has the intake's lock.
func (t *pipelineTracing) newRunTrace(e *entry) *runTrace {
	if t == nil {
		return nil
	}
	r := &runTrace{attempt: 1, arrived: e.arrived}
	if e.run != nil {
		r.attempt = e.run.trace.attempt + 1
	}
	return r
}

// beginRun starts the span of a run. It stores the span in the context and the metadata of msg,
// from where the handler and the outputs get it.
func (t *pipelineTracing) beginRun(r *run, msg *message.Message) {
	if t == nil {
		return
	}
	ctx, span := t.tracer.Start(tracing.Extract(msg.Context(), msg.Metadata), t.spanName, trace.WithSpanKind(trace.SpanKindConsumer))
	r.trace.span = span
	msg.SetContext(ctx)
	tracing.Inject(ctx, msg.Metadata)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(t.common...)
	span.SetAttributes(
		attemptKey.Int(r.trace.attempt),
		waitedKey.Float64(float64(time.Since(r.trace.arrived))/float64(time.Millisecond)),
		semconv.MessagingMessageBodySize(len(msg.Payload)),
	)
	text := func(key attribute.Key, value string) {
		if value != "" {
			span.SetAttributes(key.String(value))
		}
	}
	text(idKey, r.entry.desc.ID)
	text(keyKey, r.entry.desc.Key)
	text(deviceKey, msg.Metadata[transports.Device])
	text(semconv.MessagingMessageIDKey, msg.Metadata[transports.MessageID])
	text(semconv.MessagingMessageConversationIDKey, msg.Metadata[transports.CorrelationID])
	text(semconv.MessagingRabbitMQDestinationRoutingKeyKey, msg.Metadata[transports.SourcePrefix+"routing_key"])
	if msg.Metadata[transports.Redelivered] == "true" {
		span.SetAttributes(redeliveredKey.Bool(true))
	}
	if r.entry.reason != "" {
		span.AddEvent("refused", trace.WithAttributes(attribute.String("reason", string(r.entry.reason))))
	}
}

// traceCalls is a middleware around the handler. It adds an event to the span for each failed
// call, since the middleware retry may call the handler several times in one run.
func (t *pipelineTracing) traceCalls(next message.HandlerFunc) message.HandlerFunc {
	if t == nil {
		return next
	}
	return func(msg *message.Message) ([]*message.Message, error) {
		msgs, err := next(msg)
		r := runOf(msg).trace
		r.calls++
		if err != nil && r.span.IsRecording() {
			r.span.AddEvent("attempt failed", trace.WithAttributes(attribute.Int("call", r.calls), attribute.String("error", err.Error())))
		}
		return msgs, err
	}
}

// endRun ends the span after the run is settled.
func (t *runTrace) endRun(produced []*message.Message, v verdict, cause error) {
	if t == nil || t.span == nil {
		return
	}
	defer t.span.End()
	if !t.span.IsRecording() {
		return
	}
	outcome := [...]string{handled: "handled", unavailable: "unavailable", cancelled: "cancelled"}[v]
	t.span.SetAttributes(outcomeKey.String(outcome))
	for _, msg := range produced {
		if msg.Metadata[transports.Type] != device.TypeResult {
			continue
		}
		if result, err := device.ParseResult(msg.Payload); err == nil {
			t.span.SetAttributes(deviceKey.String(result.Device), stateKey.String(string(result.State)))
		}
	}
	if kind := handlers.KindOf(cause); cause != nil && kind != handlers.KindDrop {
		if v == handled {
			outcome = kind.String()
		}
		t.span.SetAttributes(semconv.ErrorTypeKey.String(outcome))
		tracing.Fail(t.span, cause.Error())
	}
}

// beginPublish starts the span of a publish by the run that ctx belongs to. It returns nil if that
// run isn't traced.
func (t *pipelineTracing) beginPublish(ctx context.Context, ref transports.TopicRef, msgs []*message.Message) trace.Span {
	if t == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	_, span := t.tracer.Start(ctx, string(ref)+" publish", trace.WithSpanKind(trace.SpanKindProducer))
	span.SetAttributes(t.topicAttributes(ref)...)
	span.SetAttributes(t.pipeline, semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend)
	if len(msgs) > 1 {
		span.SetAttributes(semconv.MessagingBatchMessageCount(len(msgs)))
	} else {
		span.SetAttributes(semconv.MessagingMessageIDKey.String(msgs[0].UUID))
	}
	return span
}

// endPublish ends the span of a publish.
func endPublish(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		tracing.Fail(span, err.Error())
	}
	span.End()
}
