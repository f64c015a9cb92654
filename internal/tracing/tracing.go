// Package tracing sends the host's spans to a collector, and reads and writes the trace context of messages. Nothing of it is built in a
// host that doesn't trace.
//
// Start with [New]. What makes spans gets a tracer; a span that has ended waits in a bounded queue and is exported in the background, and
// is dropped where there is no room: tracing never holds up a message, and never fails one.
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

// scope names what makes the spans.
const scope = "github.com/pentrough/pentrough"

const (
	// room is how many ended spans wait for their export at most, those included that are being exported.
	room = 8192
	// batch is how many are exported at once, and gathering how long they wait for others.
	batch     = 512
	gathering = time.Second
	// patience is how long a batch is tried again before it is dropped.
	patience = 30 * time.Second
	// longest bounds a text in a span.
	longest = 1024
)

// Config is what a host's tracing is made of.
type Config struct {
	// Endpoint is the collector's base URL for OTLP over HTTP, such as http://127.0.0.1:4318.
	Endpoint string
	// Sample is the share of traces that are recorded among those that begin here; one that comes with a message is recorded if its
	// sender says so.
	Sample float64
	// Headers are sent with each export.
	Headers map[string]string
	// Service, Version and Host say whose spans they are.
	Service, Version, Host string

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Tracing makes spans and exports them.
type Tracing struct {
	provider *sdk.TracerProvider
	exporter *exporter
}

// New begins to trace. A collector that can't be reached is not an error.
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
	limits.AttributeValueLengthLimit = longest
	return &Tracing{exporter: e, provider: sdk.NewTracerProvider(
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(c.Sample))),
		sdk.WithRawSpanLimits(limits),
		sdk.WithResource(resource.NewWithAttributes(semconv.SchemaURL,
			semconv.ServiceName(c.Service), semconv.ServiceVersion(c.Version), semconv.ServiceInstanceID(c.Host))),
		sdk.WithSpanProcessor(&queue{e, sdk.NewBatchSpanProcessor(e,
			// The queue in front of it has less room, so that this one never drops anything itself.
			sdk.WithMaxQueueSize(room), sdk.WithMaxExportBatchSize(batch), sdk.WithBatchTimeout(gathering), sdk.WithExportTimeout(patience))}),
	)}, nil
}

// Tracer returns what makes the host's spans.
func (t *Tracing) Tracer() trace.Tracer { return t.provider.Tracer(scope) }

// Close exports what waits, as far as that succeeds at once and while ctx lives, and ends the tracing.
func (t *Tracing) Close(ctx context.Context) error {
	t.exporter.close()
	defer context.AfterFunc(ctx, t.exporter.end)()
	// The end of ctx ends every export, and with them the shutdown.
	err := t.provider.Shutdown(context.WithoutCancel(ctx))
	t.exporter.end()
	if lost := t.exporter.lost.Load(); lost > 0 {
		return fmt.Errorf("ending the tracing: %d spans could not be exported and are lost", lost)
	}
	return err
}
