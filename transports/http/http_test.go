package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/transporttest"
)

func TestMain(m *testing.M) { await.Main(m) }

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Harness{
		Config: func(*testing.T) transports.Config {
			c := defaults
			c.Listen, c.Window = "127.0.0.1:0", 8
			return &c
		},
		Topic: "/orders",
		Put: func(t *testing.T, tr transports.Transport, payloads ...string) {
			s := tr.(*server)
			for _, payload := range payloads {
				before := s.arrived("/orders")
				go post(s, "/orders", payload, nil)
				s.awaitArrival(t, "/orders", before+1)
			}
		},
	})
}

// arrived counts the messages of the path's subscription.
func (s *server) arrived(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.routes[path]
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.enqueued
}

// awaitArrival waits until want messages have arrived at the path.
func (s *server) awaitArrival(t *testing.T, path string, want int) {
	t.Helper()
	await.That(t, fmt.Sprintf("%d messages have arrived at %s", want, path), func() (any, bool) {
		n := s.arrived(path)
		return n, n >= want
	})
}

// awaitState waits until the subscription of /x holds what want says.
func (s *server) awaitState(t *testing.T, want string) {
	t.Helper()
	await.That(t, "the subscription has "+want, func() (any, bool) {
		got := s.state()
		return got, got == want
	})
}

// start builds and starts a transport with the defaults, as changed.
func start(t *testing.T, change func(*Config)) *server {
	t.Helper()
	return startWith(t, change, slog.New(slog.DiscardHandler))
}

func startWith(t *testing.T, change func(*Config), log *slog.Logger) *server {
	t.Helper()
	s := build(t, change, log)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// startInBubble builds a transport and starts it on connections in memory, for a bubble of
// virtual time.
func startInBubble(t *testing.T, change func(*Config)) *server {
	t.Helper()
	s := build(t, change, slog.New(slog.DiscardHandler))
	if err := s.serveOn(&wire{conns: make(chan net.Conn), closed: make(chan struct{})}, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// wire is a listener in memory.
type wire struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	caller, host := net.Pipe()
	select {
	case w.conns <- host:
		return caller, nil
	case <-w.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial connects to the server.
func (s *server) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if l, ok := s.listener.(*listen.Listener); ok {
		if w, ok := l.Listener.(*wire); ok {
			return w.dial(ctx, network, addr)
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

func build(t *testing.T, change func(*Config), log *slog.Logger) *server {
	t.Helper()
	c := defaults
	c.Listen = "127.0.0.1:0"
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	tr, err := c.New(transports.Env{
		Name: "web", Host: "gateway-1", Logger: log,
		Now:        func() time.Time { return time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC) },
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := tr.(*server)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// consume takes the messages of /x until ctx ends.
func consume(ctx context.Context, t *testing.T, s *server, take func(*transports.Delivery)) (transports.Subscriber, <-chan struct{}) {
	t.Helper()
	sub, err := s.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	done, err := sub.Subscribe(ctx, "/x", take)
	if err != nil {
		t.Fatal(err)
	}
	return sub, done
}

// room is more than the deliveries that any test leaves untaken.
const room = 1000

// subscribe yields the messages of /x until the test ends.
func subscribe(t *testing.T, s *server) <-chan *transports.Delivery {
	t.Helper()
	out := make(chan *transports.Delivery, room)
	consume(t.Context(), t, s, func(d *transports.Delivery) { out <- d })
	return out
}

// handled is the outcome of a message with which nothing more is to be said.
var handled = &transports.Outcome{Code: 200}

// handle settles every message of /x with one outcome, as it is handed out.
func handle(t *testing.T, s *server, o *transports.Outcome) {
	t.Helper()
	consume(t.Context(), t, s, func(d *transports.Delivery) { d.Settle(o) })
}

func (s *server) addr() string { return s.listener.Addr().String() }

// response is what came back.
type response struct {
	*nethttp.Response
	body string
	err  error
}

func (r response) id() string {
	var n note
	_ = json.Unmarshal([]byte(r.body), &n)
	return n.ID
}

func (r response) reason() string {
	var n note
	_ = json.Unmarshal([]byte(r.body), &n)
	return n.Error
}

// post sends a message on a connection of its own.
func post(s *server, target, body string, header map[string]string) response {
	return request(context.Background(), s, nethttp.MethodPost, target, body, header)
}

func request(ctx context.Context, s *server, method, target, body string, header map[string]string) response {
	client := &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true, DialContext: s.dial}}
	req, err := nethttp.NewRequestWithContext(ctx, method, "http://"+s.addr()+target, strings.NewReader(body))
	if err != nil {
		return response{err: err}
	}
	for name, value := range header {
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		return response{err: err}
	}
	defer func() { _ = res.Body.Close() }()
	content, err := io.ReadAll(res.Body)
	return response{res, string(content), err}
}

// asyncID is the id that async gives to a message.
const asyncID = "id-1"

// async sends a message and yields the response.
func async(ctx context.Context, s *server, target, body string) <-chan response {
	c := make(chan response, 1)
	go func() {
		c <- request(ctx, s, nethttp.MethodPost, target, body, map[string]string{"Idempotency-Key": asyncID})
	}()
	return c
}

// expect holds that the request of async was answered so.
func (r response) expect(t *testing.T, status int, reason string) {
	t.Helper()
	if r.err != nil {
		t.Fatalf("the request failed: %v", r.err)
	}
	if r.StatusCode != status {
		t.Errorf("status %d, want %d: %s", r.StatusCode, status, r.body)
	}
	if r.id() != asyncID {
		t.Errorf("id %q, want %q: %s", r.id(), asyncID, r.body)
	}
	if !strings.Contains(r.reason(), reason) || (reason == "") != (r.reason() == "") {
		t.Errorf("error %q, want %q", r.reason(), reason)
	}
	if retry := r.Header.Get("Retry-After"); (retry != "") != (status == 503) {
		t.Errorf("status %d with Retry-After %q", status, retry)
	}
}

func TestMessage(t *testing.T) {
	s := start(t, nil)
	out := subscribe(t, s)
	res := async(t.Context(), s, "/x", "plain")
	msg := <-out
	msg.Settle(handled)
	(<-res).expect(t, 200, "")
	if msg.UUID != "id-1" || string(msg.Payload) != "plain" {
		t.Errorf("received %s %q", msg.UUID, msg.Payload)
	}
}

func TestIDsAreMadeUp(t *testing.T) {
	s := start(t, nil)
	handle(t, s, handled)
	first, second := post(s, "/x", "a", nil), post(s, "/x", "a", nil)
	if first.id() == "" || second.id() == "" || first.id() == second.id() {
		t.Errorf("the ids %q and %q", first.id(), second.id())
	}
}

func TestRepeatedHeaders(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		want, err           string
	}{
		{"Idempotency-Key", "a", "b", "", `the header Idempotency-Key is given twice, as "a" and as "b"`},
		{"Idempotency-Key", "a", "a", "a", ""},
		{"Content-Type", "text/csv", "text/plain", "", `the header Content-Type is given twice, as "text/csv" and as "text/plain"`},
		{"X-Correlation-Id", "a", "b", "", `the header X-Correlation-Id is given twice, as "a" and as "b"`},
		{"Traceparent", "a", "b", "", `the header Traceparent is given twice, as "a" and as "b"`},
		{"Tracestate", "a=b", "c=d", "a=b, c=d", ""},
		{"Content-Encoding", "gzip", "br", "gzip, br", ""},
	} {
		md, err := metadataOf(&nethttp.Request{Header: nethttp.Header{c.name: {c.first, c.second}}}, time.Now())
		if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err || md[mapped[c.name]] != c.want {
			t.Errorf("%s: %v, %v", c.name, md, err)
		}
	}
}

func TestMetadata(t *testing.T) {
	now := time.Date(2026, 5, 4, 3, 2, 1, 5, time.UTC)
	r, err := nethttp.ReadRequest(bufio.NewReader(strings.NewReader("POST /x HTTP/1.1\r\n" +
		"Host: localhost\r\n" +
		"Idempotency-Key: k-1\r\n" +
		"X-Correlation-ID: c-1\r\n" +
		"Content-Type: application/json\r\n" +
		"Content-Encoding: gzip\r\n" +
		"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n" +
		"tracestate: a=b\r\n" +
		"x-site: north\r\n" +
		"Accept: a/b\r\n" +
		"Accept: c/d\r\n" +
		"Authorization: Bearer s3cret\r\n" +
		"Cookie: a=s3cret\r\n" +
		"Connection: keep-alive, x-hop\r\n" +
		"X-Hop: 1\r\n" +
		"Keep-Alive: 5\r\n" +
		"TE: trailers\r\n" +
		"Upgrade: h2c\r\n" +
		"Proxy-Authorization: s3cret\r\n" +
		"Content-Length: 0\r\n\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	got, err := metadataOf(r, now)
	if err != nil {
		t.Fatal(err)
	}
	want := message.Metadata{
		"message_id":         "k-1",
		"correlation_id":     "c-1",
		"content_type":       "application/json",
		"content_encoding":   "gzip",
		"header.traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"header.tracestate":  "a=b",
		"header.X-Site":      "north",
		"header.Accept":      "a/b, c/d",
		"timestamp":          "2026-05-04T03:02:01.000000005Z",
	}
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s is %q, want %q", key, got[key], value)
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s is %q, want none", key, got[key])
		}
	}

	r.Header.Del("Idempotency-Key")
	if md, err := metadataOf(r, now); err != nil || md["message_id"] != "" {
		t.Errorf("without an id: %v, %v", md, err)
	}
	for _, c := range []struct{ name, value, want string }{
		{"Idempotency-Key", strings.Repeat("k", 256), `the header Idempotency-Key has 256 bytes, "` + strings.Repeat("k", 64) + `"...; at most 255 are allowed`},
		{"Idempotency-Key", "a\tb", `the header Idempotency-Key, "a\tb", has a control character`},
		{"Idempotency-Key", "a\u200b", `the header Idempotency-Key, "a\u200b", has U+200B, which can't be printed`},
		{"Idempotency-Key", "e\u0301", "the header Idempotency-Key, \"e\u0301\", is not in the Unicode normal form C (NFC), in which it is \"\\u00e9\""},
		{"X-Correlation-Id", strings.Repeat("c", 256), `the header X-Correlation-Id has 256 bytes, "` + strings.Repeat("c", 64) + `"...; at most 255 are allowed`},
		{"X-Any", "\xff", "the header X-Any is not UTF-8"},
	} {
		bad := r.Clone(t.Context())
		bad.Header.Set(c.name, c.value)
		if md, err := metadataOf(bad, now); err == nil || err.Error() != c.want {
			t.Errorf("the header %s: %q: %v, %v, want %s", c.name, c.value, md, err, c.want)
		}
	}
}

func TestTLS(t *testing.T) {
	cert, key, roots := certificate(t)
	s := start(t, func(c *Config) { c.TLS = &transports.ServerTLS{Cert: cert, Key: key} })
	handle(t, s, handled)
	client := &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true, TLSClientConfig: roots}}
	res, err := client.Post("https://"+s.addr()+"/x", "text/plain", strings.NewReader("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != nethttp.StatusOK || res.ProtoMajor != 1 {
		t.Errorf("%s %s", res.Proto, res.Status)
	}
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"taken", func(c *Config) { c.Listen = taken.Addr().String() }, "listening on " + taken.Addr().String()},
		{"no certificate", func(c *Config) { c.TLS = &transports.ServerTLS{Cert: "absent.crt", Key: "absent.key"} }, "reading tls.cert: open absent.crt: no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := defaults
			c.change(&config)
			tr, err := config.New(transports.Env{Logger: slog.New(slog.DiscardHandler), Now: time.Now, Registerer: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			if err := tr.Start(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Start: %v, want %q", err, c.want)
			}
			if err := tr.Health()[0].Err; err == nil {
				t.Error("the listener works")
			}
			if err := tr.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWarnsOfOpenListener(t *testing.T) {
	for _, c := range []struct {
		listen string
		token  transports.Secret
		want   bool
	}{
		{"127.0.0.1:0", "", false},
		{"0.0.0.0:0", "s3cret", false},
		{"0.0.0.0:0", "", true},
	} {
		var log bytes.Buffer
		startWith(t, func(config *Config) { config.Listen, config.Token = c.listen, c.token }, slog.New(slog.NewTextHandler(&log, nil)))
		if got := strings.Contains(log.String(), "without a token"); got != c.want {
			t.Errorf("listening on %s with token %q logs %s", c.listen, string(c.token), log.String())
		}
		if strings.Contains(log.String(), "s3cret") {
			t.Error("the log shows the token")
		}
	}
}

func TestTopic(t *testing.T) {
	c := defaults
	got, err := c.Topic("/devices/commands", transports.Consume)
	if want := (transports.Topic{Window: 1000, Impatient: true, Stream: "/devices/commands"}); err != nil || got != want {
		t.Errorf("Topic: %+v, %v, want %+v", got, err, want)
	}
	if _, err := c.Topic("/x", transports.Produce); err == nil {
		t.Error("a path can be published to")
	}
	for _, name := range []string{"", "commands", "/commands/", "//commands", "/a/../b", "/a b", "/a?b", "/a#b", "/a%20b", "/a\n"} {
		if _, err := c.Topic(name, transports.Consume); err == nil {
			t.Errorf("%q is a topic", name)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, ""},
		{func(c *Config) { c.Listen = "8080" }, `listen: "8080" is no address to listen on`},
		{func(c *Config) { c.Token = "two words" }, "token: a bearer token"},
	} {
		config := defaults
		c.change(&config)
		err := config.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("Validate: %v, want %q", err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "two words") {
			t.Error("the error shows the token")
		}
	}
	if got := defaults.Needs().Binds; len(got) != 1 || got["listen"] != defaults.Listen {
		t.Errorf("Binds: %v", got)
	}
}
