// Package tracing sends the host's spans to a collector, and reads and writes the trace context of
// messages. A host that doesn't trace creates no [Tracing].
//
// [New] starts tracing, and [Tracing.Tracer] returns the tracer that makes spans. A span that has
// ended waits in a bounded queue until it is exported in the background. If the queue is full, the
// span is dropped. So tracing never delays a message, and never fails one.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// scope is the name of the tracer.
const scope = "github.com/pentrough/pentrough"

const (
	// maxWaiting is the most ended spans that wait, including those that are being exported.
	maxWaiting = 8192
	// batch is the most spans in one export. batchDelay is how long a batch waits for more spans.
	batch      = 512
	batchDelay = time.Second
	// exportTimeout is how long the export of a batch is retried before the batch is dropped.
	exportTimeout = 30 * time.Second
	// maxText is the most bytes of a text in a span.
	maxText = 1024
)

// Config is the configuration of a host's tracing.
type Config struct {
	// Endpoint is the collector's base URL for OTLP over HTTP, such as http://127.0.0.1:4318.
	Endpoint string
	// Sample is the share of traces that are recorded, from 0 to 1. It applies to traces that
	// begin in this host. If a message arrives with a trace, its sender has decided.
	Sample float64
	// Headers are sent with each export.
	Headers map[string]string
	// Service, Version and Host identify the program that made the spans.
	Service, Version, Host string

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Tracing makes spans and exports them.
type Tracing struct {
	provider *sdk.TracerProvider
	exporter *exporter
}

// New starts tracing. A collector that can't be reached isn't an error.
func New(c Config) (*Tracing, error) {
	client, err := newClient(c.Endpoint, c.Headers)
	if err != nil {
		return nil, err
	}
	e := newExporter(otlptrace.NewUnstarted(client), c.Logger.With("to", client.shown))
	for _, counter := range []prometheus.Collector{e.exported, e.dropped} {
		if err := c.Registerer.Register(counter); err != nil {
			return nil, fmt.Errorf("registering the metrics of tracing: %w", err)
		}
	}
	limits := sdk.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxText
	return &Tracing{exporter: e, provider: sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(c.Sample))),
		sdk.WithRawSpanLimits(limits),
		sdk.WithResource(resource.NewWithAttributes(semconv.SchemaURL,
			semconv.ServiceName(c.Service), semconv.ServiceVersion(c.Version), semconv.ServiceInstanceID(c.Host))),
		sdk.WithSpanProcessor(&queue{e, sdk.NewBatchSpanProcessor(e,
			// The queue in front of the processor drops spans first, so that the processor never
			// does.
			sdk.WithMaxQueueSize(maxWaiting), sdk.WithMaxExportBatchSize(batch), sdk.WithBatchTimeout(batchDelay), sdk.WithExportTimeout(exportTimeout))}),
	)}, nil
}

// Tracer returns the tracer that makes the host's spans.
func (t *Tracing) Tracer() trace.Tracer { return t.provider.Tracer(scope) }

// Close exports the waiting spans and ends the tracing. It tries each batch once, until ctx ends.
// The error says how many spans are lost.
func (t *Tracing) Close(ctx context.Context) error {
	t.exporter.close()
	defer context.AfterFunc(ctx, t.exporter.end)()
	// The end of ctx ends all exports, and so the shutdown.
	err := t.provider.Shutdown(context.WithoutCancel(ctx))
	t.exporter.end()
	if lost := t.exporter.lost.Load(); lost > 0 {
		return fmt.Errorf("ending the tracing: %d spans could not be exported and are lost", lost)
	}
	return err
}
