package http

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

const token = "s3cret"

// call sends a request with the token from an address, over TLS if there is a configuration of it.
func call(t *testing.T, s *server, from string, encrypted *tls.Config) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &nethttp.Transport{DisableKeepAlives: true, DialContext: dialer.DialContext, TLSClientConfig: encrypted}
	scheme := "http://"
	if encrypted != nil {
		scheme = "https://"
	}
	req, err := nethttp.NewRequestWithContext(t.Context(), nethttp.MethodPost, scheme+s.addr()+"/x", strings.NewReader("a"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := (&nethttp.Client{Transport: transport, Timeout: await.Patience}).Do(req)
	if err != nil {
		t.Fatalf("a caller from %s: %v", from, err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("a caller from %s: %s", from, res.Status)
	}
}

// Strangers that take all places, and keep them by whatever they send or don't, keep no caller
// out, from another address or from theirs, and end no request that is being handled.
func TestStrangersKeepNobodyOut(t *testing.T) {
	const places = 10
	cert, key, trusting := certificate(t)
	for _, c := range []struct {
		name, say string
		answer    int // for which they wait; 0 if there is none
		change    func(*Config)
		client    *tls.Config
	}{
		{name: "silent", change: func(c *Config) { c.Token = token }},
		{name: "silent, no token", change: func(*Config) {}},
		{name: "half a head", say: "POST /x HTTP/1.1\r\nHost: loc", change: func(c *Config) { c.Token = token }},
		{name: "half a body without the token", say: "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa", change: func(c *Config) { c.Token = token }},
		{name: "half a body, no token", say: "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa", change: func(*Config) {}},
		{name: "answered before and idle, no token", say: "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n", answer: 405, change: func(*Config) {}},
		{name: "half of a second request, no token", say: "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /x HTTP/1.1\r\n", answer: 405, change: func(*Config) {}},
		{name: "silent with TLS", change: func(c *Config) { c.Token, c.TLS = token, &transports.ServerTLS{Cert: cert, Key: key} }, client: trusting},
		{name: "half a TLS handshake", say: "\x16\x03\x01\x02\x00\x01\x00", change: func(c *Config) { c.Token, c.TLS = token, &transports.ServerTLS{Cert: cert, Key: key} }, client: trusting},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, func(config *Config) {
				config.MaxConnections, config.ReadTimeout, config.IdleTimeout = places, time.Hour, time.Hour
				c.change(config)
			})
			out := subscribe(t, s)
			going := make(chan struct{})
			go func() {
				defer close(going)
				call(t, s, "127.0.0.1", c.client)
			}()
			first := <-out
			go func() {
				for {
					select {
					case d := <-out:
						d.Settle(handled)
					case <-t.Context().Done():
						return
					}
				}
			}()
			for range 3 * places {
				conn, err := net.Dial("tcp", s.addr())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if _, err := io.WriteString(conn, c.say); err != nil {
					continue // it was displaced already
				}
				if c.answer == 0 {
					continue
				}
				if res, err := nethttp.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != c.answer {
					t.Fatalf("got %+v, %v", res, err)
				}
			}
			for _, from := range []string{"127.0.0.2", "127.0.0.1"} {
				call(t, s, from, c.client)
			}
			if h := s.Health()[0]; h.Err != nil || !strings.Contains(h.Note, "under pressure") {
				t.Errorf("got %+v", h)
			}
			first.Settle(handled)
			<-going
		})
	}
}

// Strangers that were refused give their places back at once, also with a body that they don't
// send.
func TestRefusedStrangersAreClosed(t *testing.T) {
	for _, c := range []struct {
		name, head string
		token      transports.Secret
		status     int
	}{
		{"401", "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", token, 401},
		{"401 in the body", "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa", token, 401},
		{"403, host name", "POST /x HTTP/1.1\r\nHost: rebound.example.com\r\nContent-Length: 5\r\n\r\naa", "", 403},
		{"403, other site", "POST /x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n\r\n", "", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, func(config *Config) {
				config.Token, config.ReadTimeout, config.IdleTimeout = c.token, time.Hour, time.Hour
			})
			handle(t, s, handled)
			res := callRaw(t, s, c.head).answer()
			if res.err != nil || res.StatusCode != c.status || !res.Close {
				t.Fatalf("got %+v", res)
			}
			await.That(t, "the place is free", func() (any, bool) {
				state := s.gate.State()
				return state, state == listen.State{}
			})
		})
	}
}
