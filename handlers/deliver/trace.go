package deliver

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/transports/device"
)

// enqueueTraced queues the command for its device. If ctx has a recorded span, the write gets a
// child span, which ends with the last byte of the frame. The answer to a request gets a second
// child span, which starts there.
func (d *deliver) enqueueTraced(ctx context.Context, o *order, options device.EnqueueOptions) (device.Write, error) {
	if d.env.Tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return d.devices.Enqueue(o.name, o.Payload, options)
	}
	w := &tracedWrite{ctx: ctx, tracer: d.env.Tracer, isRequest: options.Request != nil}
	w.about = trace.WithAttributes(
		attribute.String("pentrough.id", o.ID), attribute.String("pentrough.device", o.name), attribute.String("pentrough.pipeline", d.env.Pipeline))
	options.Times = &w.times
	_, w.span = w.tracer.Start(ctx, "device write", trace.WithSpanKind(trace.SpanKindClient), w.about)
	w.span.SetAttributes(attribute.Int("pentrough.bytes", len(o.Payload)))
	var err error
	if w.Write, err = d.devices.Enqueue(o.name, o.Payload, options); err != nil {
		w.span.SetStatus(codes.Error, err.Error())
		w.span.End()
		return nil, err
	}
	return w, nil
}

// tracedWrite is a write that is recorded as spans.
type tracedWrite struct {
	device.Write
	ctx       context.Context
	tracer    trace.Tracer
	about     trace.SpanStartEventOption
	span      trace.Span
	isRequest bool
	times     device.Times
}

// Wait waits for the write and ends its spans. It implements device.Write.
func (w *tracedWrite) Wait(ctx context.Context) device.Written {
	ended := w.Write.Wait(ctx)
	now := time.Now()
	if !w.times.Begun.IsZero() {
		w.span.AddEvent("given to the connection", trace.WithTimestamp(w.times.Begun))
	}
	if ended.Epoch > 0 {
		w.span.SetAttributes(attribute.Int64("pentrough.epoch", int64(ended.Epoch)))
	}
	switch ended.Fate {
	case device.Sent, device.Answered, device.NoReply:
	default:
		w.span.SetStatus(codes.Error, unwritten[ended.Fate]+ended.Detail)
	}
	written := w.times.Written
	if written.IsZero() {
		w.span.End(trace.WithTimestamp(now))
		return ended
	}
	w.span.End(trace.WithTimestamp(written))
	if w.isRequest {
		w.addAnswerSpan(ended, written, now)
	}
	return ended
}

// addAnswerSpan records the span from the last byte of a request to its answer, or to the end of
// the wait.
func (w *tracedWrite) addAnswerSpan(ended device.Written, from, now time.Time) {
	_, span := w.tracer.Start(w.ctx, "device answer", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(from), w.about)
	if ended.Fate == device.Answered && !w.times.Answered.IsZero() {
		now = w.times.Answered
	}
	if ended.Fate == device.Answered {
		span.SetAttributes(attribute.Int("pentrough.bytes", len(ended.Reply)))
	} else {
		span.SetStatus(codes.Error, ended.Detail)
	}
	span.End(trace.WithTimestamp(now))
}

// unwritten has the status of a span for each fate of a frame that wasn't written as a whole.
var unwritten = map[device.Fate]string{
	device.Expired:    "expired. ",
	device.Offline:    "the device went offline. ",
	device.Unknown:    "interrupted. ",
	device.Cancelled:  "cancelled. ",
	device.Superseded: "superseded. ",
	device.Rejected:   "rejected. ",
}
