package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// tracesPath is the path below its base URL at which a collector receives traces.
	tracesPath = "/v1/traces"
	// requestTimeout bounds one export.
	requestTimeout = 10 * time.Second
	// maxAnswer is the most bytes that are read of an answer.
	maxAnswer = 64 << 10
)

// client sends spans as OTLP over HTTP, in protobuf. It replaces otlptracehttp, whose generated
// service definitions depend on all of gRPC (docs/decisions/0018).
type client struct {
	url string
	// shown is the part of the URL that may be logged.
	shown   string
	headers map[string]string
	http    http.Client
}

func newClient(endpoint string, headers map[string]string) (*client, error) {
	u, err := ParseEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(u.Path, tracesPath) {
		u = u.JoinPath(tracesPath)
	}
	return &client{
		url: u.String(), shown: u.Scheme + "://" + u.Host, headers: headers,
		http: http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConns: 2, IdleConnTimeout: time.Minute},
			// A redirect would send the headers, which may be secret, to another server.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// ParseEndpoint parses a collector's base URL. The error doesn't quote it, since it may be secret.
func ParseEndpoint(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("not the URL of a collector")
	case u.User != nil:
		return nil, errors.New("a collector's URL has no user; headers can carry an authorization")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("a collector's URL has neither a query nor a fragment")
	}
	return u, nil
}

// Start implements otlptrace.Client.
func (*client) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (c *client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client: it makes one attempt.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// It has the encoding of ExportTraceServiceRequest, whose Go type depends on gRPC.
	data := &tracepb.TracesData{ResourceSpans: spans}
	body, err := proto.Marshal(data)
	if err != nil { // ids, devices and causes come from others and may not be UTF-8
		makeValidUTF8(data.ProtoReflect())
		body, err = proto.Marshal(data)
	}
	if err != nil {
		return &statusError{text: fmt.Sprintf("encoding spans: %v", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case resp.StatusCode/100 != 2:
		return &statusError{code: resp.StatusCode, text: "the collector answered " + resp.Status}
	case err != nil:
		return fmt.Errorf("reading the collector's answer: %w", err)
	default:
		return partialError(answer)
	}
}

// makeValidUTF8 makes each text in m valid UTF-8. A single invalid text would prevent the encoding
// of the batch.
func makeValidUTF8(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.StringKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "\ufffd")))
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			for i := range v.List().Len() {
				makeValidUTF8(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			makeValidUTF8(v.Message())
		}
		return true
	})
}

// statusError is an error that the network didn't cause.
type statusError struct {
	code int // of the answer; 0 if no request was sent
	text string
}

func (e *statusError) Error() string { return e.text }

// isRetryable reports whether an export that failed with err may succeed later. The status codes
// are those that OTLP names.
func isRetryable(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	if !ok {
		return true
	}
	switch e.code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	default:
		return false
	}
}

// refusedError says that the collector accepted only a part of the spans.
type refusedError struct {
	spans int64
	why   string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the collector refused %d spans: %s", e.spans, e.why)
}

// partialError returns a refusedError if the collector accepted only a part of the spans. answer
// is an ExportTraceServiceResponse. Its field 1 is the partial success, which has the number of
// refused spans in field 1 and the cause in field 2.
func partialError(answer []byte) error {
	var e refusedError
	for num, value := range protoFields(answer) {
		if num != 1 {
			continue
		}
		for num, value := range protoFields(value.bytes) {
			switch num {
			case 1:
				e.spans = int64(value.number)
			case 2:
				e.why = string(value.bytes)
			}
		}
	}
	if e.spans <= 0 {
		return nil
	}
	return &e
}

// field is one value of a protobuf message.
type field struct {
	number uint64
	bytes  []byte
}

// protoFields yields the fields of a protobuf message, up to the first one that can't be decoded.
func protoFields(b []byte) func(yield func(protowire.Number, field) bool) {
	return func(yield func(protowire.Number, field) bool) {
		for len(b) > 0 {
			num, kind, n := protowire.ConsumeTag(b)
			if n < 0 {
				return
			}
			b = b[n:]
			var f field
			switch kind {
			case protowire.VarintType:
				f.number, n = protowire.ConsumeVarint(b)
			case protowire.BytesType:
				f.bytes, n = protowire.ConsumeBytes(b)
			default:
				n = protowire.ConsumeFieldValue(num, kind, b)
			}
			if n < 0 || !yield(num, f) {
				return
			}
			b = b[n:]
		}
	}
}
