package router

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
	sampled  = "00-" + traceID + "-" + parentID + "-01"
)

// traced configures a host to make spans. The exporter receives each span when it ends.
func traced(spans *tracetest.InMemoryExporter) func(*Config) {
	return func(c *Config) {
		c.Transports[0].Type = "amqp"
		c.Tracer = sdk.NewTracerProvider(sdk.WithSyncer(spans)).Tracer("test")
	}
}

// named returns the spans with a name, in the order in which they ended.
func named(spans *tracetest.InMemoryExporter, name string) (found tracetest.SpanStubs) {
	for _, s := range spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// said returns what a span says.
func said(s tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, kv := range s.Attributes {
		all[string(kv.Key)] = kv.Value.String()
	}
	return all
}

func expectSaid(t *testing.T, s tracetest.SpanStub, want map[string]string) {
	t.Helper()
	got := said(s)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("span %q: %s is %q, want %q", s.Name, key, got[key], value)
		}
	}
}

func TestARunContinuesTheTraceOfItsMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		var inside trace.SpanContext
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			inside = trace.SpanContextFromContext(msg.Context())
			time.Sleep(time.Second)
			return []*message.Message{device.Result{ID: "1", Device: "d", State: device.StateSent}.Message(), handlers.Forward(msg)}, nil
		}), traced(spans))
		defer h.stop()
		h.in.send("d", "0")
		h.in.send("d", "1", transports.TraceParent, sampled, transports.TraceState, "a=b", "source.routing_key", "k")
		pass(3 * time.Second)
		runs, publishes := named(spans, "test process"), named(spans, "out:results publish")
		if len(runs) != 2 || len(publishes) != 2 {
			t.Fatalf("%d runs, %d publishes", len(runs), len(publishes))
		}
		run := runs[1]
		if c := run.SpanContext; c.TraceID().String() != traceID || run.Parent.SpanID().String() != parentID || !run.Parent.IsRemote() || c.SpanID() != inside.SpanID() ||
			run.SpanKind != trace.SpanKindConsumer || run.Status.Code != codes.Unset {
			t.Errorf("the run's span: %+v", run)
		}
		expectSaid(t, run, map[string]string{
			"messaging.system": "rabbitmq", "messaging.destination.name": "commands", "messaging.operation.type": "process", "messaging.operation.name": "process",
			"messaging.message.id": "1", "messaging.rabbitmq.destination.routing_key": "k", "messaging.message.body.size": "3",
			"pentrough.pipeline": "test", "pentrough.id": "1", "pentrough.key": "d", "pentrough.device": "d", "pentrough.state": "sent",
			"pentrough.outcome": "handled", "pentrough.attempt": "1", "pentrough.waited_ms": "1000", "error.type": "",
		})
		if took := run.EndTime.Sub(run.StartTime); took != time.Second {
			t.Errorf("the run took %s", took)
		}
		publish := publishes[1]
		if publish.Parent.SpanID() != run.SpanContext.SpanID() || publish.SpanKind != trace.SpanKindProducer {
			t.Errorf("the publish's span: %+v", publish)
		}
		expectSaid(t, publish, map[string]string{"messaging.destination.name": "results", "messaging.operation.type": "send", "messaging.batch.message_count": "2"})
		// An output continues the trace of its run. The trace that begins here is another one.
		next := "00-" + traceID + "-" + run.SpanContext.SpanID().String() + "-01"
		for _, msg := range h.out.published[2:] {
			if msg.Metadata[transports.TraceParent] != next || msg.Metadata[transports.TraceState] != "a=b" {
				t.Errorf("goes on with %v, want %s", msg.Metadata, next)
			}
		}
		if first := runs[0]; first.Parent.IsValid() || transports.TraceID(h.out.published[0].Metadata) != first.SpanContext.TraceID().String() {
			t.Errorf("a trace that begins here: %+v, goes on as %v", first, h.out.published[0].Metadata)
		}
	})
}

// Each run of a message has its own span, with the same parent.
func TestEachRunHasASpan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		var down atomic.Bool
		down.Store(true)
		h := newHarness(t, handlerFunc(func(*message.Message) ([]*message.Message, error) {
			if down.Load() {
				return nil, handlers.Unavailable(errBroken)
			}
			return nil, nil
		}), traced(spans))
		defer h.stop()
		h.in.send("d", "1", transports.TraceParent, sampled)
		synctest.Wait()
		down.Store(false)
		pass(time.Second)
		runs := named(spans, "test process")
		if len(runs) != 2 {
			t.Fatalf("%d runs", len(runs))
		}
		for i, want := range []map[string]string{
			{"pentrough.attempt": "1", "pentrough.outcome": "unavailable", "error.type": "unavailable"},
			{"pentrough.attempt": "2", "pentrough.outcome": "handled", "error.type": ""},
		} {
			expectSaid(t, runs[i], want)
			if runs[i].Parent.SpanID().String() != parentID || (runs[i].Status.Code == codes.Error) != (i == 0) {
				t.Errorf("run %d: %+v", i+1, runs[i])
			}
		}
	})
}

func TestRedeliveriesAndRefusalsAreSaid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		h := newHarness(t, refusingHandler{func(msg *message.Message) ([]*message.Message, error) {
			<-msg.Context().Done()
			return nil, context.Cause(msg.Context())
		}}, traced(spans), lanesOf(func(l *Lanes) { l.Limit, l.AckDeadline = 1, time.Hour }))
		h.in.send("d", "1", transports.Redelivered, "true")
		h.in.send("d", "2")
		h.in.send("d", "3")
		pass(DefaultLanes.Stall + time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := h.Stop(ctx); err == nil {
			t.Error("a stop amid a run is clean")
		}
		runs := named(spans, "test process")
		if len(runs) != 2 {
			t.Fatalf("%d runs: %+v", len(runs), runs)
		}
		if refused := runs[0]; len(refused.Events) != 1 || refused.Events[0].Name != "refused" {
			t.Errorf("a refusal: %+v", refused)
		}
		expectSaid(t, runs[1], map[string]string{"pentrough.redelivered": "true", "pentrough.outcome": "cancelled", "error.type": "cancelled"})
	})
}

// The span has an event for each failed call of the handler, also for a panic. If the run fails,
// the status of the span is its error.
func TestFailuresAreInTheSpan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		calls := 0
		twice := middlewareFunc(func(next message.HandlerFunc) message.HandlerFunc {
			return func(msg *message.Message) ([]*message.Message, error) {
				if out, err := next(msg); err == nil || handlers.KindOf(err) == handlers.KindDrop {
					return out, err
				}
				return next(msg)
			}
		})
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			switch msg.Metadata[transports.MessageID] {
			case "dropped":
				return nil, handlers.Drop(errBroken)
			case "failed":
				return nil, handlers.Permanent(errBroken)
			}
			if calls++; calls == 1 {
				panic("oh")
			}
			return nil, nil
		}), traced(spans), func(c *Config) { c.Pipelines[0].Middleware = []Middleware{{Name: "twice", Config: twice}} })
		defer h.stop()
		for _, id := range []string{"retried", "failed", "dropped"} {
			h.in.send("d", id)
			synctest.Wait()
		}
		runs := named(spans, "test process")
		if len(runs) != 3 {
			t.Fatalf("%d runs", len(runs))
		}
		for i, want := range []struct {
			events int
			status codes.Code
			said   map[string]string
		}{
			{1, codes.Unset, map[string]string{"error.type": ""}},
			{2, codes.Error, map[string]string{"error.type": "permanent"}},
			{1, codes.Unset, map[string]string{"error.type": ""}},
		} {
			if len(runs[i].Events) != want.events || runs[i].Status.Code != want.status {
				t.Errorf("run %d: %+v", i, runs[i])
			}
			expectSaid(t, runs[i], want.said)
		}
		if e := runs[0].Events[0]; e.Name != "attempt failed" || !slices.Contains(e.Attributes, attribute.String("error", "panic: oh")) {
			t.Errorf("the panic: %+v", e)
		}
	})
}

// A failed publish is the status of its span. The same holds for a publish by a middleware, whose
// span belongs to the run, too.
func TestPublishesHaveSpans(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		var env func(msg *message.Message) error
		h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
			return []*message.Message{handlers.NewMessage(nil)}, env(msg)
		}), traced(spans))
		defer h.stop()
		lent, err := h.pipelines[0].out.pluginPublisher("out:poison")
		if err != nil {
			t.Fatal(err)
		}
		env = func(msg *message.Message) error { return lent.Publish("", handlers.Forward(msg)) }
		h.out.failPublishing(transports.ErrUnsendable)
		h.in.send("d", "1")
		synctest.Wait()
		h.out.failPublishing(nil)
		h.in.send("d", "2")
		pass(time.Second)
		runs := named(spans, "test process")
		poisons, results := named(spans, "out:poison publish"), named(spans, "out:results publish")
		if len(runs) != 2 || len(poisons) != 2 || len(results) != 1 {
			t.Fatalf("%d runs, %d and %d publishes", len(runs), len(poisons), len(results))
		}
		if poisons[0].Status.Code != codes.Error || poisons[0].Parent.SpanID() != runs[0].SpanContext.SpanID() {
			t.Errorf("a publish that failed: %+v", poisons[0])
		}
		if poisons[1].Status.Code != codes.Unset || poisons[1].Parent.SpanID() != results[0].Parent.SpanID() {
			t.Errorf("publishes of one run: %+v, %+v", poisons[1], results[0])
		}
	})
}

// If the sender decided not to record the trace, the host passes that on and makes no span.
func TestWhatIsNotSampledGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		spans := tracetest.NewInMemoryExporter()
		h := newHarness(t, handlerFunc(echo), traced(spans))
		defer h.stop()
		h.in.send("d", "1", transports.TraceParent, "00-"+traceID+"-"+parentID+"-00")
		synctest.Wait()
		got := h.out.published[0].Metadata
		if transports.TraceID(got) != traceID || !strings.HasSuffix(got[transports.TraceParent], "-00") || len(spans.GetSpans()) > 0 {
			t.Errorf("goes on as %v, %d spans", got, len(spans.GetSpans()))
		}
	})
}

// Log lines about a message have its trace, also if the host makes no spans.
func TestLogLinesNameTheTrace(t *testing.T) {
	for name, change := range map[string]func(*Config){"off": func(*Config) {}, "on": traced(tracetest.NewInMemoryExporter())} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			bubble(t, func(t *testing.T) {
				h := newHarness(t, handlerFunc(func(msg *message.Message) ([]*message.Message, error) {
					if msg.Metadata[transports.MessageID] == "panics" {
						panic("oh")
					}
					return nil, errors.New("no")
				}), change, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				defer h.stop()
				h.in.send("a", "1", transports.TraceParent, sampled)
				h.in.send("b", "panics", transports.TraceParent, sampled)
				synctest.Wait()
			})
			for _, text := range []string{"message dropped", "panic while handling"} {
				i := strings.Index(log.String(), text)
				if i < 0 || !strings.Contains(strings.SplitN(log.String()[i:], "\n", 2)[0], " trace="+traceID) {
					t.Errorf("logged %s", log.String())
				}
			}
		})
	}
}

// With tracing disabled, the cost is a few comparisons and no allocations.
func TestTracingOffAllocatesNothing(t *testing.T) {
	var off *pipelineTracing
	msg := message.NewMessage("1", nil)
	e := &entry{}
	r := &run{entry: e, base: context.Background()}
	msgs := []*message.Message{msg}
	next := message.HandlerFunc(echo)
	if n := testing.AllocsPerRun(1000, func() {
		r.trace = off.newRunTrace(e)
		off.beginRun(r, msg)
		next = off.traceCalls(next)
		endPublish(off.beginPublish(r.base, "out:results", msgs), nil)
		r.trace.endRun(msgs, handled, errBroken)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(msg.Metadata) > 0 || msg.Context() != context.Background() {
		t.Error("something was changed")
	}
}
