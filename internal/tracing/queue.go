package tracing

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
)

// The pauses between two exports of the same batch.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 5 * time.Second
)

// queue passes ended spans to the processor that exports them. It drops a span if maxWaiting wait.
type queue struct {
	exporter *exporter
	sdk.SpanProcessor
}

// OnEnd is called when a span ends. It never waits.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if q.exporter.waiting.Add(1) > maxWaiting {
		q.exporter.waiting.Add(-1)
		q.exporter.dropped.Inc()
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// exporter exports batches, one at a time.
type exporter struct {
	to     sdk.SpanExporter
	outage *outage.Outage
	// All exports end when life ends. end ends life.
	life context.Context
	end  context.CancelFunc
	// No export is retried after closing has ended. close ends closing.
	closing context.Context
	close   context.CancelFunc
	// waiting counts the spans that have ended and are neither exported nor dropped.
	waiting atomic.Int64
	// lost counts the spans that were dropped after the end of closing.
	lost              atomic.Int64
	exported, dropped prometheus.Counter
}

func newExporter(to sdk.SpanExporter, log *slog.Logger) *exporter {
	e := &exporter{to: to, outage: outage.New(log, "exporting spans")}
	e.closing, e.close = context.WithCancel(context.Background())
	e.life, e.end = context.WithCancel(context.Background())
	e.exported = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pentrough_tracing_exported_spans_total", Help: "Spans that the collector accepted.",
	})
	e.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pentrough_tracing_dropped_spans_total", Help: "Spans that were lost, since the collector didn't accept them or too many were waiting.",
	})
	return e
}

// ExportSpans exports a batch. It retries until it drops the batch. It always returns nil, since
// it reports errors to the outage.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	n := int64(len(spans))
	defer e.waiting.Add(-n)
	pausing, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(e.closing, stop)()
	for pauses := backoff.New(firstPause, lastPause); ; {
		err := e.to.ExportSpans(ctx, spans)
		// An error from the end of ctx isn't a new cause of the outage.
		if err == nil || ctx.Err() == nil || !e.outage.Down() {
			e.outage.Report(err)
		}
		if err == nil {
			e.exported.Add(float64(n))
			return nil
		}
		if part, ok := errors.AsType[*refusedError](err); ok {
			e.countDropped(min(part.spans, n))
			e.exported.Add(float64(n - min(part.spans, n)))
			return nil
		}
		if !isRetryable(err) || e.closing.Err() != nil || !backoff.Sleep(pausing, pauses.NextBackOff()) {
			e.countDropped(n)
			return nil
		}
	}
}

func (e *exporter) countDropped(n int64) {
	e.dropped.Add(float64(n))
	if e.closing.Err() != nil {
		e.lost.Add(n)
	}
}

// Shutdown implements sdk.SpanExporter.
func (e *exporter) Shutdown(ctx context.Context) error { return e.to.Shutdown(ctx) }
