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

// queue hands ended spans on to be exported, as far as there is room.
type queue struct {
	exporter *exporter
	sdk.SpanProcessor
}

// OnEnd is called by whoever ends a span, and never waits.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if q.exporter.waiting.Add(1) > room {
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
	// life ends all exports; end ends it.
	life context.Context
	end  context.CancelFunc
	// closing ends when nothing is to be tried again; close ends it.
	closing context.Context
	close   context.CancelFunc
	// waiting counts the spans that have ended and are neither exported nor dropped.
	waiting atomic.Int64
	// lost are the spans dropped since closing.
	lost              atomic.Int64
	exported, dropped prometheus.Counter
}

func newExporter(to sdk.SpanExporter, log *slog.Logger) *exporter {
	e := &exporter{to: to, outage: outage.New(log, "exporting spans")}
	e.closing, e.close = context.WithCancel(context.Background())
	e.life, e.end = context.WithCancel(context.Background())
	e.exported = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pentrough_tracing_exported_spans_total", Help: "Spans that the collector took.",
	})
	e.dropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pentrough_tracing_dropped_spans_total", Help: "Spans that were lost, because the collector didn't take them or too many waited for it.",
	})
	return e
}

// ExportSpans exports a batch, or drops it in the end. It returns nil, as what went wrong is said here.
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
		// The end of ctx is no new cause.
		if err == nil || ctx.Err() == nil || !e.outage.Down() {
			e.outage.Report(err)
		}
		if err == nil {
			e.exported.Add(float64(n))
			return nil
		}
		if part, ok := errors.AsType[*refusedError](err); ok {
			e.drop(min(part.spans, n))
			e.exported.Add(float64(n - min(part.spans, n)))
			return nil
		}
		if !again(err) || e.closing.Err() != nil || !backoff.Sleep(pausing, pauses.NextBackOff()) {
			e.drop(n)
			return nil
		}
	}
}

func (e *exporter) drop(n int64) {
	e.dropped.Add(float64(n))
	if e.closing.Err() != nil {
		e.lost.Add(n)
	}
}

// Shutdown implements sdk.SpanExporter.
func (e *exporter) Shutdown(ctx context.Context) error { return e.to.Shutdown(ctx) }
