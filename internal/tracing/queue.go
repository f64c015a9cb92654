package tracing

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
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

// exporter exports batches, one at a time, and says once when that doesn't work and when it works again.
type exporter struct {
	to  sdk.SpanExporter
	log *slog.Logger
	// life ends all exports; end ends it.
	life context.Context
	end  context.CancelFunc
	// closing is closed when nothing is to be tried again.
	closing chan struct{}
	// waiting counts the spans that have ended and are neither exported nor dropped.
	waiting atomic.Int64
	// lost are the spans dropped since closing.
	lost              atomic.Int64
	exported, dropped prometheus.Counter
	// since is when the collector was lost; zero while it is there. Only the batch processor's goroutine uses it.
	since time.Time
}

func newExporter(to sdk.SpanExporter, log *slog.Logger) *exporter {
	e := &exporter{to: to, log: log, closing: make(chan struct{})}
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
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := e.to.ExportSpans(ctx, spans)
		if err == nil {
			e.works()
			e.exported.Add(float64(n))
			return nil
		}
		e.fails(err)
		if part, ok := errors.AsType[*refusedError](err); ok {
			e.drop(min(part.spans, n))
			e.exported.Add(float64(n - min(part.spans, n)))
			return nil
		}
		if !again(err) || !e.pause(ctx, pause) {
			e.drop(n)
			return nil
		}
	}
}

// pause waits before a batch is tried again. It is false if that isn't to be.
func (e *exporter) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-e.closing:
		return false
	default:
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.closing:
		return false
	case <-ctx.Done():
		return false
	}
}

func (e *exporter) drop(n int64) {
	e.dropped.Add(float64(n))
	select {
	case <-e.closing:
		e.lost.Add(n)
	default:
	}
}

func (e *exporter) fails(err error) {
	if e.since.IsZero() {
		e.since = time.Now()
		e.log.Warn("exporting spans; messages go on, and the spans that don't find room are dropped", "err", err)
	}
}

func (e *exporter) works() {
	if !e.since.IsZero() {
		e.log.Info("exporting spans works again", "after", time.Since(e.since).Round(time.Millisecond))
		e.since = time.Time{}
	}
}

// Shutdown implements sdk.SpanExporter.
func (e *exporter) Shutdown(ctx context.Context) error { return e.to.Shutdown(ctx) }
