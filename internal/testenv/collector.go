package testenv

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Collector receives spans by OTLP over HTTP and keeps them. It is safe for concurrent use.
type Collector struct {
	// URL is the collector's base URL.
	URL string

	mu      sync.Mutex
	spans   []Span
	headers http.Header
	answer  func(w http.ResponseWriter, r *http.Request) bool
}

// Span is one span that a collector received.
type Span struct {
	Name, Kind string
	// Trace, ID and Parent are in hexadecimal. Parent is empty for the first span of a trace.
	Trace, ID, Parent, State string
	Start, End               time.Time
	// Attributes are the attributes of the span. Resource has those of the program that made it.
	// Events has the names of the span's events.
	Attributes, Resource map[string]any
	Events               []string
	// Failed says that the span failed, and Error is the description of the failure.
	Error  string
	Failed bool
}

// NewCollector returns a collector that ends with the test.
func NewCollector(t testing.TB) *Collector {
	c := &Collector{}
	server := httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// Answer makes f answer requests from now on. If f returns true, the collector then continues as
// usual. nil removes f.
func (c *Collector) Answer(f func(w http.ResponseWriter, r *http.Request) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = f
}

// Spans returns the received spans, ordered by start time.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(c.spans)
	slices.SortStableFunc(all, func(a, b Span) int { return a.Start.Compare(b.Start) })
	return all
}

// Headers returns the headers of the last request.
func (c *Collector) Headers() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers.Clone()
}

func (c *Collector) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	answer := c.answer
	c.headers = r.Header.Clone()
	c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender has closed the connection
	}
	if answer != nil && !answer(w, r) {
		return
	}
	var data tracepb.TracesData
	if r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, &data) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range data.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, convertSpan(s, attributes(resource.Resource.GetAttributes())))
			}
		}
	}
}

func convertSpan(s *tracepb.Span, resource map[string]any) Span {
	kinds := map[tracepb.Span_SpanKind]string{
		tracepb.Span_SPAN_KIND_INTERNAL: "internal", tracepb.Span_SPAN_KIND_CLIENT: "client",
		tracepb.Span_SPAN_KIND_CONSUMER: "consumer", tracepb.Span_SPAN_KIND_PRODUCER: "producer",
	}
	out := Span{
		Name: s.Name, Kind: kinds[s.Kind], Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId), Parent: hex.EncodeToString(s.ParentSpanId),
		State: s.TraceState, Start: time.Unix(0, int64(s.StartTimeUnixNano)), End: time.Unix(0, int64(s.EndTimeUnixNano)),
		Attributes: attributes(s.Attributes), Resource: resource,
		Failed: s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR, Error: s.Status.GetMessage(),
	}
	for _, e := range s.Events {
		out.Events = append(out.Events, e.Name)
	}
	return out
}

func attributes(all []*commonpb.KeyValue) map[string]any {
	m := map[string]any{}
	for _, kv := range all {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[kv.Key] = v.IntValue
		case *commonpb.AnyValue_DoubleValue:
			m[kv.Key] = v.DoubleValue
		case *commonpb.AnyValue_BoolValue:
			m[kv.Key] = v.BoolValue
		}
	}
	return m
}
