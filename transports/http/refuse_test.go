package http

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

func TestRefusals(t *testing.T) {
	s := start(t, func(c *Config) { c.MaxBody = 10; c.Hosts = []string{"Gateway.example.com"} })
	handle(t, s, handled)
	for _, c := range []struct {
		name, method, target, body string
		header                     map[string]string
		status                     int
		reason                     string
	}{
		{name: "fits", target: "/x", body: strings.Repeat("a", 10), status: 200},
		{name: "too large", target: "/x", body: strings.Repeat("a", 11), status: 413, reason: "larger than 10 bytes"},
		{name: "too large with an id", target: "/x", body: strings.Repeat("a", 11), header: map[string]string{"Idempotency-Key": "k"}, status: 413, reason: "larger than 10 bytes"},
		{name: "unknown path", target: "/y", status: 404, reason: "there is no topic of this path; the topics are /x"},
		{name: "other case", target: "/X", status: 404, reason: "no topic"},
		{name: "longer path", target: "/x/", status: 404, reason: "no topic"},
		{name: "GET", method: "GET", target: "/x", status: 405, reason: "POST"},
		{name: "PUT", method: "PUT", target: "/x", status: 405, reason: "POST"},
		{name: "wait without a unit", target: "/x?wait=5", status: 400, reason: `wait="5" has no unit; did you mean "5s"?`},
		{name: "bad wait", target: "/x?wait=soon", status: 400, reason: `wait="soon" is not a time such as 10s`},
		{name: "negative wait", target: "/x?wait=-1s", status: 400, reason: "is not a time"},
		{name: "empty wait", target: "/x?wait=", status: 400, reason: `wait="" is not a time`},
		{name: "two waits", target: "/x?wait=1s&wait=2s", status: 400, reason: "wait is given more than once"},
		{name: "misspelt wait", target: "/x?wiat=10s", status: 400, reason: `unknown query parameter "wiat"; allowed: wait, as in ?wait=10s`},
		{name: "another parameter", target: "/x?wait=1s&async", status: 400, reason: `unknown query parameter "async"`},
		{name: "bad query", target: "/x?wait=%zz", status: 400, reason: `reading the query: invalid URL escape "%zz"`},
		{name: "empty query", target: "/x?", status: 200},
		{name: "long id", target: "/x", header: map[string]string{"Idempotency-Key": strings.Repeat("a", 256)}, status: 400, reason: "Idempotency-Key has 256 bytes"},
		{name: "other site", target: "/x", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, status: 403, reason: "other sites"},
		{name: "other origin", target: "/x", header: map[string]string{"Origin": "https://example.com"}, status: 403, reason: "other sites"},
		{name: "rebound name", target: "/x", header: map[string]string{"Host": "rebound.example.com:8080"}, status: 403, reason: "host name"},
		{name: "own name", target: "/x", header: map[string]string{"Host": "gateway-1:8080"}, status: 200},
		{name: "localhost", target: "/x", header: map[string]string{"Host": "LocalHost"}, status: 200},
		{name: "IPv6 address", target: "/x", header: map[string]string{"Host": "[::1]:8080"}, status: 200},
		{name: "listed name", target: "/x", header: map[string]string{"Host": "gateway.example.com"}, status: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			method := c.method
			if method == "" {
				method = nethttp.MethodPost
			}
			res := request(t.Context(), s, method, c.target, c.body, c.header)
			if res.err != nil {
				t.Fatal(res.err)
			}
			if res.StatusCode != c.status || !strings.Contains(res.reason(), c.reason) {
				t.Errorf("%d %s, want %d %s", res.StatusCode, res.body, c.status, c.reason)
			}
			if made := c.status == 200; made != (res.id() != "") {
				t.Errorf("status %d with the id %q", res.StatusCode, res.id())
			}
			if allow := res.Header.Get("Allow"); (allow == "POST") != (c.status == 405) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

func TestChunkedBodyIsLimited(t *testing.T) {
	s := start(t, func(c *Config) { c.MaxBody = 10 })
	handle(t, s, handled)
	head := "POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
	if status := talk(t, s, head+"b\r\naaaaaaaaaaa\r\n0\r\n\r\n"); status != 413 {
		t.Errorf("status %d, want 413", status)
	}
}

func TestToken(t *testing.T) {
	s := start(t, func(c *Config) { c.Token = "s3cret" })
	handle(t, s, handled)
	for header, want := range map[string]int{
		"":                      401,
		"Bearer s3cret":         200,
		"bearer s3cret":         200,
		"Bearer s3cre":          401,
		"Bearer s3cret2":        401,
		"Bearer":                401,
		"s3cret":                401,
		"Basic dXNlcjpzM2NyZXQ": 401,
	} {
		// With a token any name of the host will do.
		res := post(s, "/x", "a", map[string]string{"Authorization": header, "Host": "gateway.example.com"})
		if res.err != nil || res.StatusCode != want {
			t.Errorf("Authorization %q: %+v, want %d", header, res, want)
		} else if ask := res.Header.Get("WWW-Authenticate"); (ask == "Bearer") != (want == 401) {
			t.Errorf("Authorization %q: WWW-Authenticate %q", header, ask)
		}
	}
	if res := post(s, "/unknown", "a", nil); res.err != nil || res.StatusCode != nethttp.StatusUnauthorized {
		t.Errorf("an unknown path without a token: %+v, want 401", res)
	}
}

// talk sends raw bytes and returns the status of the response, or 0 if the connection ends without
// one.
func talk(t *testing.T, s *server, request string) int {
	t.Helper()
	c, err := s.dial(t.Context(), "tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	defer writing.Wait()
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(await.Patience)); err != nil {
		t.Fatal(err)
	}
	if request != "" {
		writing.Go(func() { _, _ = io.WriteString(c, request) }) // it may be refused in the middle
	}
	res, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if os.IsTimeout(err) {
			t.Fatalf("waited %s for a response; the connection stays open", await.Patience)
		}
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestSlowRequests(t *testing.T) {
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"nothing", "", 0},
		{"half a head", "POST /x HTTP/1.1\r\nHost: loc", 0},
		{"half a body", "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa", 408},
		{"half a body of no topic", "POST /y HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa", 404},
		{"large head", "POST /x HTTP/1.1\r\nHost: localhost\r\nX-A: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n", 431},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := startInBubble(t, func(c *Config) { c.ReadTimeout = 200 * time.Millisecond })
				handle(t, s, handled)
				if status := talk(t, s, c.request); status != c.status {
					t.Errorf("status %d, want %d", status, c.status)
				}
			})
		})
	}
}

// A read deadline that passed during the wait must not look like a caller who hung up.
func TestReadTimeoutIsOverOnceTheBodyIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startInBubble(t, func(c *Config) { c.ReadTimeout, c.RequestTimeout = 200*time.Millisecond, 500*time.Millisecond })
		out := subscribe(t, s)
		res := async(t.Context(), s, "/x", "a")
		msg := <-out
		(<-res).expect(t, 503, "undecided")
		if err := msg.Context.Err(); err != nil {
			t.Errorf("the message's context ended: %v", context.Cause(msg.Context))
		}
	})
}

func TestMaxConnections(t *testing.T) {
	s := start(t, func(c *Config) { c.MaxConnections = 2 })
	out := subscribe(t, s)
	var callers []<-chan response
	for range 2 {
		callers = append(callers, async(t.Context(), s, "/x", "a"))
	}
	one, two := <-out, <-out
	callers = append(callers, async(t.Context(), s, "/x", "a"))
	await.That(t, "the third one waits", func() (any, bool) {
		h := s.Health()[0]
		return h, h.Err != nil && strings.Contains(h.Err.Error(), "all 2 that max_connections allows are in use; further ones wait")
	})
	one.Settle(handled)
	(<-out).Settle(handled)
	two.Settle(handled)
	for _, c := range callers {
		(<-c).expect(t, 200, "")
	}
	if h := s.Health()[0]; h.Err != nil {
		t.Errorf("got %+v", h)
	}
}

// certificate makes a certificate for 127.0.0.1. It returns its files, and the client
// configuration that trusts it.
func certificate(t *testing.T) (cert, key string, client *tls.Config) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(fmt.Errorf("writing %s: %w", name, err))
		}
		return file
	}
	roots := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(parsed)
	return write("server.crt", "CERTIFICATE", der), write("server.key", "PRIVATE KEY", pkcs8), &tls.Config{RootCAs: roots}
}
