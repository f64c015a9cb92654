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
	// tracesPath is where a collector takes traces, below its base URL.
	tracesPath = "/v1/traces"
	// requestTimeout bounds one export.
	requestTimeout = 10 * time.Second
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 10
)

// client sends spans as OTLP over HTTP, in protobuf. It stands in for otlptracehttp, whose generated service definitions bring
// all of gRPC with them (docs/decisions/0018).
type client struct {
	url string
	// shown is the URL as it may be logged.
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
			// What is redirected would take the headers with it to somebody else.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// ParseEndpoint reads a collector's base URL. The error doesn't quote it.
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
	// On the wire it is the ExportTraceServiceRequest, whose Go type comes with gRPC.
	data := &tracepb.TracesData{ResourceSpans: spans}
	body, err := proto.Marshal(data)
	if err != nil { // ids, devices and causes are what others sent
		repair(data.ProtoReflect())
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
		return refused(answer)
	}
}

// repair makes every text in m valid UTF-8: one that isn't would cost the whole batch.
func repair(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Kind() == protoreflect.StringKind && !f.IsList():
			m.Set(f, protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "\ufffd")))
		case f.Kind() == protoreflect.MessageKind && f.IsList():
			for i := range v.List().Len() {
				repair(v.List().Get(i).Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			repair(v.Message())
		}
		return true
	})
}

// statusError is a failure that isn't the network's.
type statusError struct {
	code int // 0: it never got so far
	text string
}

func (e *statusError) Error() string { return e.text }

// again reports whether an export that failed so may succeed later. OTLP names the answers for which that is so.
func again(err error) bool {
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

// refusedError says that the collector took only a part.
type refusedError struct {
	spans int64
	why   string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the collector refused %d spans: %s", e.spans, e.why)
}

// refused reads an ExportTraceServiceResponse: its field 1 is the partial success, with the number of refused spans in field 1 and the
// cause in field 2. Whatever else was answered says nothing.
func refused(answer []byte) error {
	var e refusedError
	for num, value := range fields(answer) {
		if num != 1 {
			continue
		}
		for num, value := range fields(value.bytes) {
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

// fields yields what is in a protobuf message, as far as it is one.
func fields(b []byte) func(yield func(protowire.Number, field) bool) {
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
