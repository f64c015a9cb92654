package router

import (
	"context"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/pentrough/pentrough/transports"
)

// BenchmarkTracing moves one message at a time through a pipeline: without tracing, with a trace
// that isn't recorded, and with a recorded trace whose spans are discarded. docs/decisions/0018
// has the numbers from before the host had tracing.
func BenchmarkTracing(b *testing.B) {
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(discarded{}))
	for _, c := range []struct {
		name, parent string
		change       func(*Config)
	}{
		{"off", sampled, func(*Config) {}},
		{"unsampled", sampled[:len(sampled)-1] + "0", func(c *Config) { c.Tracer = provider.Tracer("bench") }},
		{"sampled", sampled, func(c *Config) { c.Tracer = provider.Tracer("bench") }},
	} {
		b.Run(c.name, func(b *testing.B) {
			in, out := newSystem(16), newSystem(16)
			config := Config{
				Name: "host", Transports: []Transport{{Name: "in", Config: in}, {Name: "out", Config: out}},
				Pipelines: []Pipeline{{
					Name: "test", From: "in:commands", To: "out:results", Handler: Handler{Type: "func", Config: handlerFunc(echo)},
					DropErrors: true, Lanes: DefaultLanes, Batch: DefaultBatch,
				}},
			}
			c.change(&config)
			host, err := New(config)
			if err != nil {
				b.Fatal(err)
			}
			if err := host.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				<-in.send("d", "1", transports.TraceParent, c.parent).outcome
			}
			if err := host.Stop(context.Background()); err != nil {
				b.Error(err)
			}
		})
	}
}

// discarded is an exporter that discards spans.
type discarded struct{}

func (discarded) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (discarded) OnEnd(sdk.ReadOnlySpan)                     {}
func (discarded) Shutdown(context.Context) error             { return nil }
func (discarded) ForceFlush(context.Context) error           { return nil }
