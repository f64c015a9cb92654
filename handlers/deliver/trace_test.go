package deliver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports/device"
)

// spanned has the fields of a span that a test checks. Its times count from the enqueue.
type spanned struct {
	Name, Status string
	From, To     time.Duration
	Events       int
}

func TestSpansOfAWrite(t *testing.T) {
	var (
		request = `{"device":"d","cmd":"x","reply":true}`
		command = `{"device":"d","cmd":"x"}`
	)
	for name, c := range map[string]struct {
		body string
		// begun, written and answered are after the enqueue; 0 is never.
		begun, written, answered time.Duration
		ends                     device.Written
		refused                  error
		want                     []spanned
	}{
		"sent": {
			body: command, begun: 1, written: 2, ends: device.Written{Fate: device.Sent, Epoch: 7},
			want: []spanned{{Name: "device write", To: 2, Events: 1}},
		},
		"answered": {
			body: request, begun: 1, written: 2, answered: 5, ends: device.Written{Fate: device.Answered, Epoch: 7, Reply: "yes"},
			want: []spanned{{Name: "device write", To: 2, Events: 1}, {Name: "device answer", From: 2, To: 5}},
		},
		"no reply": {
			body: request, begun: 1, written: 2, ends: device.Written{Fate: device.NoReply, Epoch: 7, Detail: "silence"},
			want: []spanned{{Name: "device write", To: 2, Events: 1}, {Name: "device answer", Status: "silence", From: 2, To: -1}},
		},
		"interrupted": {
			body: request, begun: 1, ends: device.Written{Fate: device.Unknown, Epoch: 7, Detail: "after 3 bytes"},
			want: []spanned{{Name: "device write", Status: "interrupted. after 3 bytes", To: -1, Events: 1}},
		},
		"expired": {
			body: command, ends: device.Written{Fate: device.Expired},
			want: []spanned{{Name: "device write", Status: "expired. ", To: -1}},
		},
		"offline": {
			body: command, refused: device.ErrOffline,
			want: []spanned{{Name: "device write", Status: device.ErrOffline.Error(), To: -1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spans := tracetest.NewInMemoryExporter()
				tracer := sdk.NewTracerProvider(sdk.WithSyncer(spans)).Tracer("test")
				host, devices := newHost(t)
				var enqueued time.Time
				devices.EnqueueFunc = func(_ string, _ []byte, o device.EnqueueOptions) (device.Write, error) {
					enqueued = time.Now()
					for d, at := range map[*time.Time]time.Duration{&o.Times.Begun: c.begun, &o.Times.Written: c.written, &o.Times.Answered: c.answered} {
						if at > 0 {
							*d = enqueued.Add(at * time.Second)
						}
					}
					return handlertest.Ended(c.ends), c.refused
				}
				h := tracing(t, host, tracer)
				ctx, parent := tracer.Start(t.Context(), "parent")
				out, err := handlertest.Handle(ctx, h, newMessage("1", c.body))
				only(t, out, err)
				var got []spanned
				for _, s := range spans.GetSpans() {
					if s.Parent.SpanID() != parent.SpanContext().SpanID() || s.SpanKind != trace.SpanKindClient {
						t.Errorf("%+v", s)
					}
					got = append(got, spanned{s.Name, s.Status.Description, seconds(s.StartTime.Sub(enqueued)), seconds(s.EndTime.Sub(enqueued)), len(s.Events)})
					if (s.Status.Code == codes.Error) != (s.Status.Description != "") {
						t.Errorf("status %+v", s.Status)
					}
				}
				for i := range c.want {
					// A span that ends when the handler returns ends now. The fake's times are
					// later.
					if c.want[i].To == -1 {
						c.want[i].To = 0
					}
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func seconds(d time.Duration) time.Duration { return d.Round(time.Second) / time.Second }

// tracing builds the handler with a tracer.
func tracing(t testing.TB, host *handlertest.Host, tracer trace.Tracer) handlers.Handler {
	t.Helper()
	c := defaults
	c.Devices = "devices"
	env := host.Env()
	env.Tracer = tracer
	h, err := c.New(env)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Without a tracer, or in a trace that isn't recorded, a write allocates no more than without
// tracing code.
func TestWritesOutsideOfATraceCostNothingMore(t *testing.T) {
	host, devices := newHost(t)
	devices.EnqueueFunc = func(_ string, _ []byte, o device.EnqueueOptions) (device.Write, error) {
		if o.Times != nil {
			t.Error("times are asked for")
		}
		return written, nil
	}
	exporter := tracetest.NewInMemoryExporter()
	tracer := sdk.NewTracerProvider(sdk.WithSyncer(exporter), sdk.WithSampler(sdk.NeverSample())).Tracer("test")
	unsampled, _ := tracer.Start(t.Context(), "parent")
	for name, c := range map[string]struct {
		tracer trace.Tracer
		ctx    context.Context
	}{"off": {nil, t.Context()}, "not recorded": {tracer, unsampled}} {
		h := tracing(t, host, c.tracer).(*deliver)
		o := &order{Command: device.Command{Payload: []byte("x")}, key: "d"}
		var direct, through float64
		direct = testing.AllocsPerRun(200, func() { _, _ = h.devices.Enqueue(o.key, o.Payload, device.EnqueueOptions{}) })
		through = testing.AllocsPerRun(200, func() { _, _ = h.enqueueTraced(c.ctx, o, device.EnqueueOptions{}) })
		if through != direct {
			t.Errorf("%s: %v allocations, %v without tracing", name, through, direct)
		}
	}
	if n := len(exporter.GetSpans()); n > 0 {
		t.Errorf("%d spans", n)
	}
}

var written device.Write = handlertest.Ended{Fate: device.Sent, Epoch: 7}

// BenchmarkHandle delivers a command with and without tracing.
func BenchmarkHandle(b *testing.B) {
	exporter := sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample()), sdk.WithSpanProcessor(discarded{}))
	for _, c := range []struct {
		name   string
		tracer trace.Tracer
	}{{"off", nil}, {"on", exporter.Tracer("test")}} {
		b.Run(c.name, func(b *testing.B) {
			host := handlertest.NewHost(b)
			host.Devices("devices").EnqueueFunc = func(string, []byte, device.EnqueueOptions) (device.Write, error) { return written, nil }
			h := tracing(b, host, c.tracer)
			ctx := b.Context()
			if c.tracer != nil {
				ctx, _ = c.tracer.Start(ctx, "parent")
			}
			msg := message.NewMessage("1", []byte(`{"device":"d","cmd":"x"}`))
			msg.SetContext(ctx)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Handle(msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// discarded is a span processor that does nothing.
type discarded struct{}

func (discarded) OnStart(context.Context, sdk.ReadWriteSpan) {}
func (discarded) OnEnd(sdk.ReadOnlySpan)                     {}
func (discarded) Shutdown(context.Context) error             { return nil }
func (discarded) ForceFlush(context.Context) error           { return nil }
