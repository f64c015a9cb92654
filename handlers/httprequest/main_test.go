package httprequest

import (
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.uber.org/goleak"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// A process reads the proxy from the environment once. This proxy answers with the URL of the
// request.
func TestMain(m *testing.M) {
	proxy := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprint(w, "proxied ", r.URL) }))
	os.Setenv("HTTP_PROXY", proxy.URL)
	os.Unsetenv("NO_PROXY")
	code := m.Run()
	proxy.Close()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// endpoint is a server that records its requests.
type endpoint struct {
	*httptest.Server
	mu   sync.Mutex
	seen []asked
}

type asked struct {
	method, path, body string
	header             nethttp.Header
}

// serve starts a server that records each request, and then answers it with f.
func serve(t *testing.T, f nethttp.HandlerFunc) *endpoint {
	return serveOn(t, "127.0.0.1", f)
}

func serveOn(t *testing.T, host string, f nethttp.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		body, _ := io.ReadAll(r.Body)
		e.mu.Lock()
		e.seen = append(e.seen, asked{r.Method, r.URL.RequestURI(), string(body), r.Header})
		e.mu.Unlock()
		f(w, r)
	}))
	e.Listener.Close()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	e.Listener = listener
	e.Start()
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) asked() []asked {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]asked(nil), e.seen...)
}

// with returns the defaults for a URL, changed by f.
func with(url string, f func(*Config)) *Config {
	c := defaults()
	c.URL = transports.Secret(url)
	if f != nil {
		f(c)
	}
	return c
}

// build builds the handler of a valid configuration, and closes it at the end of the test.
func build(t *testing.T, c *Config) *hook {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	h := handlertest.NewHost(t).Build(c).(*hook)
	t.Cleanup(func() { h.Close() })
	return h
}

// call handles one message.
func call(t *testing.T, c *Config) ([]*message.Message, error) {
	t.Helper()
	return handlertest.Handle(t.Context(), build(t, c), order())
}

func order() *message.Message {
	msg := message.NewMessage("uuid", []byte(`{"n":1}`))
	msg.Metadata = message.Metadata{transports.MessageID: "order-1", transports.Device: "10.0.0.7", transports.ContentType: "application/json"}
	return msg
}

func answering(status int, body string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// raw serves connections by hand.
func raw(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			work.Go(func() {
				defer conn.Close()
				f(conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return "http://" + listener.Addr().String()
}

// expect checks an error's kind, its retry time, the beginning of its text, and parts of its text.
func expect(t *testing.T, err error, kind handlers.Kind, after time.Duration, begins string, parts ...string) {
	t.Helper()
	if wrong := differs(err, kind, after, begins, parts...); wrong != nil {
		t.Error(wrong)
	}
}

// differs returns how an error differs from the expected one.
func differs(err error, kind handlers.Kind, after time.Duration, begins string, parts ...string) error {
	if err == nil || handlers.KindOf(err) != kind || handlers.RetryAfterOf(err) != after || !strings.HasPrefix(err.Error(), begins) {
		return fmt.Errorf("got the error %q, %v, asking for %v; want %v, %v, %s", fmt.Sprint(err), handlers.KindOf(err), handlers.RetryAfterOf(err), kind, after, begins)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			return fmt.Errorf("%w doesn't say %s", err, part)
		}
	}
	if len(err.Error()) > 500 {
		return fmt.Errorf("an error of %d bytes", len(err.Error()))
	}
	return nil
}

// patiently calls f with longer and longer timeouts until it succeeds. A busy machine may need
// some time to reach the point where the timeout should end the call.
func patiently(t *testing.T, what string, f func(timeout time.Duration) (wrong error)) {
	t.Helper()
	timeout := 25 * time.Millisecond
	await.That(t, what, func() (any, bool) {
		timeout *= 2
		wrong := f(timeout)
		return fmt.Sprintf("with a timeout of %v: %v", timeout, wrong), wrong == nil
	})
}
