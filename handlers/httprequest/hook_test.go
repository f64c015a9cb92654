package httprequest

import (
	"context"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/transports"
)

func TestDuties(t *testing.T) {
	for _, output := range []string{outputResponse, outputMessage, outputNone} {
		t.Run(output, func(t *testing.T) {
			e := serve(t, answering(200, "fine"))
			handlertest.Run(t, func(t *testing.T) handlers.Handler {
				return handlertest.NewHost(t).Build(with(e.URL, func(c *Config) { c.Output = output }))
			}, order(), message.NewMessage("bare", nil))
		})
	}
}

func TestWhatIsSent(t *testing.T) {
	full := order()
	full.Metadata = message.Metadata{
		transports.MessageID: "order-1", transports.CorrelationID: "c-1", transports.ContentType: "application/json", transports.ContentEncoding: "identity",
		transports.TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", transports.TraceState: "a=b", transports.Device: "10.0.0.7",
		transports.Redelivered: "true", "header.Authorization": "the message's own stays here",
	}
	for _, c := range []struct {
		name   string
		msg    *message.Message
		user   string
		path   string
		change func(*Config)
		want   asked
	}{
		{"all that a message has", full, "", "/orders?token=t", nil, asked{"POST", "/orders?token=t", `{"n":1}`, nethttp.Header{
			"Idempotency-Key": {"order-1"}, "X-Correlation-Id": {"c-1"}, "Content-Type": {"application/json"}, "Content-Encoding": {"identity"}, "Content-Length": {"7"},
			"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Tracestate": {"a=b"}, "User-Agent": {"pentrough"},
		}}},
		{"a bare one", message.NewMessage("uuid", nil), "", "/", nil, asked{"POST", "/", "", nethttp.Header{
			"Idempotency-Key": {"uuid"}, "Content-Length": {"0"}, "User-Agent": {"pentrough"},
		}}},
		{"settings", order(), "", "/", func(c *Config) {
			c.Method = "PUT"
			c.Headers = map[string]transports.Secret{"authorization": "Bearer x", "content-type": "text/plain", "User-Agent": "mine"}
			c.Forward = map[string]string{"x-device": "device", "X-Tenant": "header.X-Tenant"}
		}, asked{"PUT", "/", `{"n":1}`, nethttp.Header{
			"Authorization": {"Bearer x"}, "Content-Type": {"text/plain"}, "User-Agent": {"mine"}, "X-Device": {"10.0.0.7"}, "Idempotency-Key": {"order-1"}, "Content-Length": {"7"},
		}}},
		{"a user", order(), "user:p%40ss@", "/", nil, asked{"POST", "/", `{"n":1}`, nethttp.Header{
			"Authorization": {"Basic dXNlcjpwQHNz"}, "Content-Type": {"application/json"}, "User-Agent": {"pentrough"}, "Idempotency-Key": {"order-1"}, "Content-Length": {"7"},
		}}},
		{"no body", order(), "", "/", func(c *Config) { c.Method = "GET" }, asked{"GET", "/", "", nethttp.Header{
			"User-Agent": {"pentrough"}, "Idempotency-Key": {"order-1"},
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := serve(t, answering(204, ""))
			h := build(t, with(strings.Replace(e.URL, "://", "://"+c.user, 1)+c.path, c.change))
			if _, err := handlertest.Handle(t.Context(), h, c.msg); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]asked{c.want}, e.asked(), cmp.AllowUnexported(asked{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsProduced(t *testing.T) {
	e := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Encoding", "gzip") // the hook passes it on unchecked
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(201)
		io.WriteString(w, "\x1f\x8b no gzip")
	})
	out, err := call(t, with(e.URL, nil))
	if err != nil || len(out) != 1 || string(out[0].Payload) != "\x1f\x8b no gzip" {
		t.Fatalf("%v, %v", out, err)
	}
	want := message.Metadata{
		transports.MessageID: out[0].UUID, "http.status": "201", transports.ContentType: "text/csv; charset=utf-8", transports.ContentEncoding: "gzip", transports.Device: "10.0.0.7",
	}
	if diff := cmp.Diff(want, out[0].Metadata); diff != "" {
		t.Error(diff)
	}
	out, err = call(t, with(e.URL, func(c *Config) { c.Output = outputMessage }))
	if err != nil || len(out) != 1 || out[0].UUID != "uuid" || string(out[0].Payload) != `{"n":1}` || out[0].Metadata[transports.MessageID] != "order-1" {
		t.Errorf("%v, %v", out, err)
	}
	if out, err := call(t, with(e.URL, func(c *Config) { c.Output = outputNone })); err != nil || len(out) != 0 {
		t.Errorf("%v, %v", out, err)
	}
	for _, seen := range e.asked() {
		if seen.header.Get("Cookie") != "" {
			t.Error("a cookie was kept")
		}
	}
}

// A value that is too long for a property isn't passed on.
func TestStrangeHeadersOfAnAnswer(t *testing.T) {
	for _, kind := range []string{"text/plain; x=" + strings.Repeat("x", 300), "no type at all", "text/\xff"} {
		e := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { w.Header()["Content-Type"] = []string{kind} })
		out, err := call(t, with(e.URL, nil))
		if err != nil || len(out) != 1 || out[0].Metadata[transports.ContentType] != "" {
			t.Errorf("%.40q: %v, %v", kind, out, err)
		}
	}
}

func TestMetadataThatCanBeNoHeader(t *testing.T) {
	e := serve(t, answering(200, ""))
	h := build(t, with(e.URL, func(c *Config) { c.Forward = map[string]string{"X-Note": "note"} }))
	for _, key := range []string{transports.MessageID, transports.ContentType, "note"} {
		msg := order()
		msg.Metadata[key] = "a\r\nX-Evil: b"
		_, err := handlertest.Handle(t.Context(), h, msg)
		expect(t, err, handlers.KindPermanent, 0, key+" can't be the header ")
	}
	if len(e.asked()) != 0 {
		t.Error("it was sent")
	}
}

func TestRequestsAtATime(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	arrived := make(chan struct{}, 8)
	e := serve(t, func(nethttp.ResponseWriter, *nethttp.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		arrived <- struct{}{}
		<-release
		now.Add(-1)
	})
	h := build(t, with(e.URL, func(c *Config) { c.Connections = 2 }))
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			if _, err := handlertest.Handle(t.Context(), h, order()); err != nil {
				t.Error(err)
			}
		})
	}
	<-arrived
	<-arrived
	// Both connections are in use. A call that is cancelled while it waits ends at once.
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(transports.ErrVoid)
	if _, err := handlertest.Handle(ctx, h, order()); !errors.Is(err, transports.ErrVoid) {
		t.Errorf("cancelled while it waited: %v", err)
	}
	close(release)
	work.Wait()
	if most.Load() != 2 {
		t.Errorf("%d at a time", most.Load())
	}
}

func TestACallEndsWithItsRun(t *testing.T) {
	arrived := make(chan struct{})
	e := serve(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	h := build(t, with(e.URL, func(c *Config) { c.Timeout = time.Hour }))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(transports.ErrVoid)
	}()
	msg := order()
	_, err := handlertest.Handle(ctx, h, msg)
	if !errors.Is(err, transports.ErrVoid) || !handlers.Cancelled(msg.Context()) {
		t.Errorf("ended with %v", err)
	}
}

// A deadline that a middleware sets makes a retryable error, also if the endpoint wasn't reached.
func TestADeadlineOfAMiddleware(t *testing.T) {
	url := raw(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
	h := build(t, with(url, func(c *Config) { c.Timeout = time.Hour }))
	patiently(t, "the call ends as it should", func(timeout time.Duration) error {
		msg := order()
		scope := handlertest.Begin(t.Context(), h, msg)
		ctx, cancel := context.WithTimeoutCause(scope.Base(), timeout, errors.New("the middleware's"))
		defer cancel()
		msg.SetContext(ctx)
		_, err := h.Handle(msg)
		return differs(err, handlers.KindRetryable, 0, "calling "+url+": the middleware's")
	})
}
