package deliver

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/transports/device"
)

// enqueue gives the command its place in the device's order. Where ctx has a span that is recorded, the write has one below it, from here to the frame's
// last byte, and behind that the device's answer has one, if it is waited for.
func (d *deliver) enqueue(ctx context.Context, o *order, options device.EnqueueOptions) (device.Write, error) {
	if d.env.Tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return d.devices.Enqueue(o.key, o.Payload, options)
	}
	w := &tracedWrite{ctx: ctx, tracer: d.env.Tracer, asks: options.Request != nil}
	w.about = trace.WithAttributes(
		attribute.String("pentrough.id", o.ID), attribute.String("pentrough.device", o.key), attribute.String("pentrough.pipeline", d.env.Pipeline))
	options.Times = &w.times
	_, w.span = w.tracer.Start(ctx, "device write", trace.WithSpanKind(trace.SpanKindClient), w.about)
	w.span.SetAttributes(attribute.Int("pentrough.bytes", len(o.Payload)))
	var err error
	if w.Write, err = d.devices.Enqueue(o.key, o.Payload, options); err != nil {
		w.span.SetStatus(codes.Error, err.Error())
		w.span.End()
		return nil, err
	}
	return w, nil
}

// tracedWrite is a write whose steps become spans.
type tracedWrite struct {
	device.Write
	ctx    context.Context
	tracer trace.Tracer
	about  trace.SpanStartEventOption
	span   trace.Span
	asks   bool
	times  device.Times
}

// Wait implements device.Write.
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
	if w.asks {
		w.answer(ended, written, now)
	}
	return ended
}

// answer makes the span of the time in which the device was to answer.
func (w *tracedWrite) answer(ended device.Written, from, now time.Time) {
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

// unwritten says of frames that were not written why.
var unwritten = map[device.Fate]string{
	device.Expired:    "its time was over. ",
	device.Offline:    "the device went away. ",
	device.Unknown:    "cut off. ",
	device.Cancelled:  "given up. ",
	device.Superseded: "superseded. ",
}
