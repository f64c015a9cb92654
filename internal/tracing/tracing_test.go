package tracing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

func TestMain(m *testing.M) { await.Main(m) }

// lines collects log lines.
type lines struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// count returns how many lines contain text.
func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.String(), text)
}

func newTracing(t *testing.T, url string, log *lines) *Tracing {
	t.Helper()
	tr, err := New(Config{
		Endpoint: url, Sample: 1, Service: "gateway", Version: "v1", Host: "gateway-1", Headers: map[string]string{"Authorization": "Bearer hunter2"},
		Logger: log.logger(), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// ends makes n spans.
func ends(tr *Tracing, n int) {
	for range n {
		_, span := tr.Tracer().Start(context.Background(), "x")
		span.End()
	}
}

func TestSpansReachTheCollector(t *testing.T) {
	collector, log := testenv.NewCollector(t), &lines{}
	tr := newTracing(t, collector.URL, log)
	ctx, parent := tr.Tracer().Start(context.Background(), "parent", trace.WithSpanKind(trace.SpanKindConsumer))
	_, child := tr.Tracer().Start(ctx, "child \xff")
	child.SetAttributes(attribute.String("text", "\xff"+strings.Repeat("x", 2*maxText)))
	child.AddEvent("event", trace.WithAttributes(attribute.String("\xff", "\xff")))
	Fail(child, "broken \xff")
	child.End()
	parent.End()
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := collector.Spans()
	if len(spans) != 2 {
		t.Fatalf("the collector has %d spans", len(spans))
	}
	p, c := spans[0], spans[1]
	if p.Name != "parent" || p.Kind != "consumer" || p.Parent != "" || p.Failed || p.Resource["service.name"] != "gateway" ||
		p.Resource["service.version"] != "v1" || p.Resource["service.instance.id"] != "gateway-1" {
		t.Errorf("parent %+v", p)
	}
	if text, _ := c.Attributes["text"].(string); c.Name != "child \ufffd" || c.Parent != p.ID || c.Trace != p.Trace || !c.Failed || c.Error != "broken \ufffd" ||
		!strings.Contains(text, "xxx") || len(text) > maxText+3 {
		t.Errorf("child %+v", c)
	}
	if got := collector.Headers().Get("Authorization"); got != "Bearer hunter2" {
		t.Errorf("authorization %q", got)
	}
	if n := testutil.ToFloat64(tr.exporter.exported); n != 2 {
		t.Errorf("%v spans counted", n)
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", log)
	}
}

// Whatever the collector does, ending a span doesn't wait, Close ends with its context, and an
// error is logged once and counted.
func TestACollectorInTrouble(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"stalled":    func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"broken":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"overloaded": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"redirecting": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
		"away": nil,
	} {
		t.Run(name, func(t *testing.T) {
			collector, log := testenv.NewCollector(t), &lines{}
			url := "http://127.0.0.1:1" // a port without a server
			if answer != nil {
				url = collector.URL
				collector.Answer(func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return false })
			}
			tr := newTracing(t, url, log)
			const made = 2*maxWaiting + batch
			ends(tr, made)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			err := tr.Close(ctx)
			if n := testutil.ToFloat64(tr.exporter.dropped); n != made {
				t.Errorf("%v of %d spans counted as dropped", n, made)
			}
			if err == nil {
				t.Error("the loss of the last spans isn't told")
			}
			if n := log.count("level=WARN"); n != 1 || log.count("hunter2") > 0 {
				t.Errorf("%d warnings:\n%s", n, log)
			}
		})
	}
}

// A batch is retried during an outage of the collector, and the end of the outage is logged.
func TestAnOutageIsSaidOnceAndOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		to := &scripted{errs: []error{errors.New("refused"), errors.New("refused"), &statusError{503, "503"}, nil, nil, &statusError{400, "400"}, &refusedError{1, "too old"}, nil}}
		e := newExporter(to, log.logger())
		batch := tracetest.SpanStubs{{Name: "a"}, {Name: "b"}}.Snapshots()
		for range 5 {
			if err := e.ExportSpans(t.Context(), batch); err != nil {
				t.Error(err)
			}
		}
		if to.calls != len(to.errs) {
			t.Errorf("%d exports, want %d", to.calls, len(to.errs))
		}
		// The first batch was exported at the fourth attempt, the third one never, and of the
		// fourth one a single span.
		if exported, dropped := testutil.ToFloat64(e.exported), testutil.ToFloat64(e.dropped); exported != 7 || dropped != 3 {
			t.Errorf("%v exported, %v dropped", exported, dropped)
		}
		if down, up := log.count("level=WARN"), log.count("works again"); down != 4 || up != 2 {
			t.Errorf("%d causes of outages, %d ends:\n%s", down, up, log)
		}
	})
}

type scripted struct {
	sdk.SpanExporter
	errs  []error
	calls int
}

func (s *scripted) ExportSpans(context.Context, []sdk.ReadOnlySpan) error {
	s.calls++
	return s.errs[s.calls-1]
}

func TestAPartIsRefused(t *testing.T) {
	part := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 2)
	part = protowire.AppendString(protowire.AppendTag(part, 2, protowire.BytesType), "too old")
	answer := protowire.AppendFixed32(protowire.AppendTag(nil, 9, protowire.Fixed32Type), 1)
	answer = protowire.AppendBytes(protowire.AppendTag(answer, 1, protowire.BytesType), part)
	var e *refusedError
	if err := partialError(answer); !errors.As(err, &e) || e.spans != 2 || e.why != "too old" {
		t.Errorf("a partial success is %v", err)
	}
	for _, nothing := range []string{"", "{}", "junk", "\x0a", "\x0a\x05ab", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if err := partialError([]byte(nothing)); err != nil {
			t.Errorf("%q: %v", nothing, err)
		}
	}

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) }))
	defer server.Close()
	tr := newTracing(t, server.URL, &lines{})
	ends(tr, 3)
	err := tr.Close(t.Context())
	if n := testutil.ToFloat64(tr.exporter.dropped); n != 2 || err == nil {
		t.Errorf("%v spans counted as dropped, error %v", n, err)
	}
}

func TestSampling(t *testing.T) {
	const sampled, not = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	for _, sample := range []float64{0, 1} {
		tr, err := New(Config{Endpoint: "http://127.0.0.1:1", Sample: sample, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		if err != nil {
			t.Fatal(err)
		}
		for parent, want := range map[string]bool{sampled: true, not: false, "": sample == 1, "junk": sample == 1} {
			m := message.Metadata{transports.TraceParent: parent, transports.TraceState: "a=b"}
			ctx, span := tr.Tracer().Start(Extract(context.Background(), m), "x")
			if span.IsRecording() != want {
				t.Errorf("sample %v, parent %q: recording %v", sample, parent, span.IsRecording())
			}
			Inject(ctx, m)
			flags := "-00"
			if want {
				flags = "-01"
			}
			kept := transports.TraceID(m) == transports.TraceID(message.Metadata{transports.TraceParent: parent})
			if known := len(parent) > 4; !strings.HasSuffix(m[transports.TraceParent], flags) || kept != known || (m[transports.TraceState] == "a=b") != known {
				t.Errorf("sample %v, parent %q: goes on as %v", sample, parent, m)
			}
		}
		// None of the spans ended.
		if err := tr.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://127.0.0.1:4318":                     "http://127.0.0.1:4318/v1/traces",
		"http://127.0.0.1:4318/":                    "http://127.0.0.1:4318/v1/traces",
		"https://collector.example/otlp":            "https://collector.example/otlp/v1/traces",
		"https://collector.example/otlp/v1/traces":  "https://collector.example/otlp/v1/traces",
		"127.0.0.1:4318":                            "",
		"grpc://127.0.0.1:4317":                     "",
		"http://":                                   "",
		"http://me:hunter2@127.0.0.1:4318":          "",
		"http://127.0.0.1:4318?token=hunter2":       "",
		"http://127.0.0.1:4318/#x":                  "",
		"http://hunter2 @127.0.0.1:99999999999/%zz": "",
	} {
		c, err := newClient(endpoint, nil)
		got := ""
		if err == nil {
			got = c.url
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes a secret: %v", endpoint, err)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", endpoint, got, want)
		}
	}
}
