package tcp

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// decider is an auth server whose behaviour a test changes.
type decider struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]

	mu       sync.Mutex
	requests []authRequest
	headers  []http.Header
	running  int
	most     int // requests at a time
}

func newDecider(t *testing.T, handler http.HandlerFunc) *decider {
	t.Helper()
	d := &decider{}
	d.set(handler)
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body authRequest
		err := json.NewDecoder(r.Body).Decode(&body)
		d.mu.Lock()
		if d.running++; d.running > d.most {
			d.most = d.running
		}
		d.requests, d.headers = append(d.requests, body), append(d.headers, r.Header)
		d.mu.Unlock()
		if err != nil || r.Method != http.MethodPost {
			http.Error(w, fmt.Sprintf("%s: %v", r.Method, err), http.StatusBadRequest)
		} else {
			(*d.handler.Load())(w, r)
		}
		d.mu.Lock()
		d.running--
		d.mu.Unlock()
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *decider) set(handler http.HandlerFunc) { d.handler.Store(&handler) }

// asked returns how many requests have come.
func (d *decider) asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.requests)
}

// answers returns a handler that answers every request alike.
func answers(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangs answers no request until its client goes.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// byServer lets a transport ask an auth server.
func byServer(d *decider, change func(*auth)) func(*Config) {
	return func(c *Config) {
		byInventory(c)
		c.Auth.By, c.Auth.URL = authHTTP, transports.Secret(d.URL)
		if change != nil {
			change(c.Auth)
		}
	}
}

// asking starts a transport that asks an auth server.
func asking(t *testing.T, d *decider, change func(*auth)) *server {
	t.Helper()
	s := start(t, byServer(d, change))
	t.Cleanup(func() { s.showsNo(token1, token2) })
	return s
}

// login connects a device.
func (s *server) login(name, token string) *peer {
	s.Helper()
	d := s.dial()
	d.say(name + " " + token + "\r\n")
	return d
}

func (s *server) authResult(result string) float64 {
	return testutil.ToFloat64(s.authServer.results.WithLabelValues(result))
}

func TestAnswersOfTheAuthServer(t *testing.T) {
	elsewhere := newDecider(t, answers(200, `{"allow": true}`))
	closes := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	echoes := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s\r\n\r\n", token1)
			conn.Close()
		}
	}
	for name, c := range map[string]struct {
		handler        http.HandlerFunc
		result, reason string
		text           string
	}{
		"allow":          {answers(200, ` {"allow": true, "why": "x"} `), resultAllowed, "", ""},
		"allow with 201": {answers(201, `{"allow":true}`), resultAllowed, "", ""},
		"deny":           {answers(200, `{"allow": false}`), resultDenied, refusedToken, "the auth server refuses the device"},
		"unauthorized":   {answers(401, `{"allow": true}`), resultDenied, refusedToken, "the auth server refuses the device"},
		"forbidden":      {answers(403, ``), resultDenied, refusedToken, "the auth server refuses the device"},
		"not found":      {answers(404, `{"allow": true}`), resultWrong, refusedAuthServer, "it answered with status 404"},
		"too many":       {answers(429, `{"allow": true}`), resultWrong, refusedAuthServer, "it answered with status 429"},
		"not modified":   {answers(304, ``), resultWrong, refusedAuthServer, "it answered with status 304"},
		"server error":   {answers(500, `{"allow": true}`), resultUnreachable, refusedAuthServer, "it answered with status 500"},
		"bad gateway":    {answers(502, ``), resultUnreachable, refusedAuthServer, "it answered with status 502"},
		"empty":          {answers(200, ``), resultWrong, refusedAuthServer, "it answered something else"},
		"204":            {answers(204, ``), resultWrong, refusedAuthServer, "it answered something else"},
		"junk":           {answers(200, `<html>true</html>`), resultWrong, refusedAuthServer, "it answered something else"},
		"a list":         {answers(200, `[true]`), resultWrong, refusedAuthServer, "it answered something else"},
		"a string":       {answers(200, `{"allow": "true"}`), resultWrong, refusedAuthServer, "it answered something else"},
		"a number":       {answers(200, `{"allow": 1}`), resultWrong, refusedAuthServer, "it answered something else"},
		"another key":    {answers(200, `{"Allow": true}`), resultWrong, refusedAuthServer, "it answered something else"},
		"more than one":  {answers(200, `{"allow": true}{"allow": true}`), resultWrong, refusedAuthServer, "it answered something else"},
		"the token":      {answers(200, token1), resultWrong, refusedAuthServer, "it answered something else"},
		"a huge body":    {answers(200, `{"allow": true}`+strings.Repeat(" ", maxAnswer)), resultWrong, refusedAuthServer, "it answered with more than 65536 bytes"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
		}, resultWrong, refusedAuthServer, "it answered with status 307"},
		"a GET elsewhere":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, resultWrong, refusedAuthServer, "it answered with status 302"},
		"no answer":        {hangs, resultUnreachable, refusedAuthServer, "there was no answer within auth.timeout"},
		"closed":           {closes, resultUnreachable, refusedAuthServer, "EOF"},
		"a header of junk": {echoes, resultUnreachable, refusedAuthServer, hidden},
		"half an answer": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"allow": true}`)
			_ = http.NewResponseController(w).Flush() // it is a real connection
			hangs(w, r)
		}, resultUnreachable, refusedAuthServer, "there was no answer within auth.timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDecider(t, c.handler)
			s := asking(t, d, func(a *auth) {
				if c.text == "there was no answer within auth.timeout" {
					a.Timeout = 50 * time.Millisecond
				}
			})
			p := s.login("lock-1", token1)
			if c.reason == "" {
				s.expect(device.Connected, "lock-1", "")
			} else {
				p.closed()
				s.refusedBecause(c.reason, 1)
				s.logged(c.text)
				if len(s.registry.Sessions()) > 0 {
					t.Error("there is a session")
				}
			}
			if n := s.authResult(c.result); n != 1 {
				t.Errorf("%v results are %s", n, c.result)
			}
			note := s.Health()[0].Note
			if down := c.result == resultWrong || c.result == resultUnreachable; down != strings.Contains(note, "the auth server doesn't work") {
				t.Errorf("the note of the health is %q", note)
			}
			d.set(answers(200, `{"allow": true}`))
			s.login("lock-2", token2)
			s.expect(device.Connected, "lock-2", "")
			if note := s.Health()[0].Note; note != "" {
				t.Errorf("the note of the health stays %q", note)
			}
		})
	}
	if n := elsewhere.asked(); n > 0 {
		t.Errorf("%d requests followed a redirect", n)
	}
}

// A server that can't be reached refuses devices. Its errors don't show the URL.
func TestNoAuthServer(t *testing.T) {
	d := newDecider(t, answers(200, `{"allow": true}`))
	s := asking(t, d, func(a *auth) {
		a.URL = transports.Secret(strings.Replace(d.URL, "://", "://user:hunter2@", 1) + "/secret-path")
	})
	d.Close()
	s.login("lock-1", token1).closed()
	s.refusedBecause(refusedAuthServer, 1)
	s.logged("connection refused")
	for _, secret := range []string{"hunter2", "secret-path"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("%s is in the log: %s", secret, s.log)
		}
	}
}

func TestRequestsToTheAuthServer(t *testing.T) {
	d := newDecider(t, answers(200, `{"allow": true}`))
	s := start(t, func(c *Config) {
		byServer(d, func(a *auth) { a.Headers = map[string]transports.Secret{"x-key": "hunter2"} })(c)
		if overTLS {
			mutual(c)
			c.TLS.Client = clientRequest
		}
	})
	p := s.login("lock-1", token1)
	s.expect(device.Connected, "lock-1", "")
	binary := s.login("lock-2", "\xff<1>")
	s.expect(device.Connected, "lock-2", "")
	want := []authRequest{
		{Host: "host-1", Transport: "devices", Device: "lock-1", Token: token1, RemoteAddr: p.LocalAddr().String()},
		{Host: "host-1", Transport: "devices", Device: "lock-2", Token: "/zwxPg==", Encoding: device.Base64, RemoteAddr: binary.LocalAddr().String()},
	}
	if overTLS {
		cert := issue(t, pki.ca, "lock-3", nil)
		p := s.dialTLS(shows(cert))
		p.say("lock-3 " + token1 + "\r\n")
		s.expect(device.Connected, "lock-3", "")
		sum := sha256.Sum256(cert.Leaf.Raw)
		want = append(want, authRequest{
			Host: "host-1", Transport: "devices", Device: "lock-3", Token: token1, RemoteAddr: p.LocalAddr().String(),
			Certificate: &authCertificate{Names: []string{"lock-3"}, SHA256: hex.EncodeToString(sum[:])},
		})
	}
	got, _ := json.Marshal(d.requests)
	if expected, _ := json.Marshal(want); string(got) != string(expected) {
		t.Errorf("got  %s\nwant %s", got, expected)
	}
	for _, h := range d.headers {
		if h.Get("X-Key") != "hunter2" || h.Get("Content-Type") != "application/json" {
			t.Errorf("the headers are %v", h)
		}
	}
}

// The server's certificate must be valid.
func TestAuthServerOverTLS(t *testing.T) {
	for ca, reason := range map[string]string{"": refusedAuthServer, pki.ca.Cert: ""} {
		d := newDecider(t, answers(200, `{"allow": true}`))
		encrypted := httptest.NewUnstartedServer(d.Config.Handler)
		encrypted.TLS = &tls.Config{Certificates: []tls.Certificate{pki.server.TLS}}
		encrypted.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		encrypted.StartTLS()
		s := asking(t, d, func(a *auth) {
			a.URL = transports.Secret(encrypted.URL)
			if ca != "" {
				a.TLS = &transports.TLS{CA: ca}
			}
		})
		p := s.login("lock-1", token1)
		if reason == "" {
			s.expect(device.Connected, "lock-1", "")
		} else {
			p.closed()
			s.refusedBecause(reason, 1)
			s.logged("unknown authority")
			if d.asked() > 0 {
				t.Error("the server got a token")
			}
		}
		encrypted.Close()
	}
}

// With unreachable = cached, devices that the server has accepted with the same token connect
// while it can't be reached. A later refusal ends that.
func TestRememberedDecisions(t *testing.T) {
	d := newDecider(t, answers(200, `{"allow": true}`))
	s := asking(t, d, func(a *auth) { a.Unreachable = unreachableCached })
	s.login("lock-1", token1).Close()
	s.expect(device.Connected, "lock-1", "")
	s.expect(device.Disconnected, "lock-1", device.ClientClosed)

	d.set(answers(503, ""))
	s.login("lock-1", token1).Close()
	s.expect(device.Connected, "lock-1", "")
	s.expect(device.Disconnected, "lock-1", device.ClientClosed)
	if n := s.authResult(resultCached); n != 1 {
		t.Errorf("%v results are remembered ones", n)
	}
	s.login("lock-1", token2).closed()
	s.login("lock-2", token1).closed()
	s.refusedBecause(refusedAuthServer, 2)

	d.set(answers(200, `<html>`)) // an answer that isn't a decision
	s.login("lock-1", token1).closed()
	s.refusedBecause(refusedAuthServer, 3)

	d.set(answers(403, ""))
	s.login("lock-1", token2).closed() // a stranger's refusal changes nothing for the device
	s.refusedBecause(refusedToken, 1)
	d.set(answers(503, ""))
	s.login("lock-1", token1).Close()
	s.expect(device.Connected, "lock-1", "")
	s.expect(device.Disconnected, "lock-1", device.ClientClosed)
	d.set(answers(403, ""))
	s.login("lock-1", token1).closed()
	s.refusedBecause(refusedToken, 2)
	d.set(answers(503, ""))
	s.login("lock-1", token1).closed()
	s.refusedBecause(refusedAuthServer, 4)
}

// A remembered decision counts for the time in cache, and the memory for decisions has a bound.
func TestDecisionsAreForgotten(t *testing.T) {
	now := time.Unix(1000, 0)
	a := &auth{By: authHTTP, URL: "https://auth.example.com"}
	a.SetDefaults()
	a.Unreachable, a.Cache = unreachableCached, time.Hour
	s, err := newAuthServer(a, transports.Env{Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := s.keyOf(&claim{device: "ab", token: []byte("c")})
	if key == s.keyOf(&claim{device: "a", token: []byte("bc")}) {
		t.Error("two claims have one key")
	}
	s.remember(key)
	now = now.Add(time.Hour - 1)
	if !s.isRemembered(key) {
		t.Error("the decision is forgotten early")
	}
	now = now.Add(1)
	if s.isRemembered(key) {
		t.Error("the decision is remembered for too long")
	}
	for i := range 2 * maxAllowed {
		key := s.keyOf(&claim{device: fmt.Sprint(i)})
		if s.remember(key); !s.isRemembered(key) {
			t.Fatal("a new decision isn't remembered")
		}
	}
	if n := len(s.allowed); n > maxAllowed {
		t.Errorf("%d decisions are remembered", n)
	}
}

// While the server doesn't answer, connected devices get their commands. A device that goes leaves
// nothing behind, and one that stays is refused after identity.timeout.
func TestAServerThatHangs(t *testing.T) {
	d := newDecider(t, answers(200, `{"allow": true}`))
	s := start(t, func(c *Config) {
		byServer(d, func(a *auth) { a.Concurrent, a.Timeout = 1, await.Patience })(c)
		c.Identity.Timeout = 2 * await.Patience
	})
	online := s.login("lock-1", token1)
	s.expect(device.Connected, "lock-1", "")
	left := make(chan struct{}, 1)
	d.set(func(w http.ResponseWriter, r *http.Request) { hangs(w, r); left <- struct{}{} })
	asks := s.login("lock-2", token2)
	await.That(t, "the server is asked", func() (any, bool) { n := d.asked(); return n, n == 2 })
	waits := s.login("lock-2", token2)
	s.strangers(2)
	if w := s.send("lock-1", "open"); w.Fate != device.Sent {
		t.Errorf("%+v", w)
	}
	online.hear("open\r\n")
	waits.Close()
	s.strangers(1)
	s.refusedBecause(refusedAuthServer, 1)
	d.set(answers(200, `{"allow": true}`))
	asks.Close()
	await.Receive(t, "the end of the request", left)
	s.strangers(0)
	s.refusedBecause(refusedAuthServer, 2)
	if note := s.Health()[0].Note; note != "" {
		t.Errorf("the server has the blame for devices that go: %q", note)
	}
	s.login("lock-2", token2)
	s.expect(device.Connected, "lock-2", "")
}

func TestADecisionThatIsLate(t *testing.T) {
	d := newDecider(t, hangs)
	s := start(t, func(c *Config) {
		byServer(d, func(a *auth) { a.Concurrent, a.Timeout = 1, 2*time.Second })(c)
		c.Identity.Timeout = 2100 * time.Millisecond
	})
	for i := range 3 {
		p, _ := s.dialAs(i)
		p.say("lock-1 " + token1 + "\r\n")
		defer p.closed()
	}
	s.refusedBecause(refusedAuthServer, 3)
	s.logged(errAuthLate.Error())
}

// With one request at a time, a flood of connections is decided one by one, and each of them is.
func TestAFloodOfLogins(t *testing.T) {
	const devices = 100
	d := newDecider(t, answers(200, `{"allow": true}`))
	s := start(t, func(c *Config) {
		byServer(d, func(a *auth) { a.Concurrent = 1 })(c)
		c.Identity.Timeout = await.Patience
		c.Auth.Timeout = await.Patience / 2
	})
	d.set(func(w http.ResponseWriter, r *http.Request) {
		answers(200, fmt.Sprintf(`{"allow": %v}`, s.authResult(resultAllowed) <= s.authResult(resultDenied)))(w, r)
	})
	for i := range devices {
		p, _ := s.dialAs(i)
		p.say(fmt.Sprintf("lock-%d %s\r\n", i, token1))
	}
	s.refusedBecause(refusedToken, devices/2)
	await.That(t, "the others are connected", func() (any, bool) {
		n := len(s.registry.Sessions())
		return n, n == devices/2
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.most != 1 || len(d.requests) != devices {
		t.Errorf("%d requests, %d at a time", len(d.requests), d.most)
	}
}

// A host that stops doesn't wait for the server.
func TestStopWhileTheServerHangs(t *testing.T) {
	d := newDecider(t, hangs)
	s := start(t, func(c *Config) {
		byServer(d, func(a *auth) { a.Timeout = await.Patience })(c)
		c.Identity.Timeout = 2 * await.Patience
	})
	p := s.login("lock-1", token1)
	await.That(t, "the server is asked", func() (any, bool) { n := d.asked(); return n, n == 1 })
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.closed()
}

// A connection that waits for the server is unidentified, so newer connections displace it.
func TestWaitingLoginsAreDisplaced(t *testing.T) {
	d := newDecider(t, hangs)
	s := start(t, func(c *Config) {
		byServer(d, func(a *auth) { a.Timeout = await.Patience })(c)
		c.Identity.Timeout, c.MaxUnidentified = 2*await.Patience, 1
	})
	p := s.login("lock-1", token1)
	await.That(t, "the server is asked", func() (any, bool) { n := d.asked(); return n, n == 1 })
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.closed()
	s.refusedBecause(refusedDisplaced, 1)
}
