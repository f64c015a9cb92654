package httprequest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/handlers/handlertest"
)

func TestStatuses(t *testing.T) {
	later := handlertest.Start.Add(90 * time.Second).Format(nethttp.TimeFormat)
	earlier := handlertest.Start.Add(-time.Hour).Format(nethttp.TimeFormat)
	for _, c := range []struct {
		status int
		after  string
		change func(*Config)
		kind   handlers.Kind
		waits  time.Duration
	}{
		{status: 300, kind: handlers.KindPermanent},
		{status: 304, kind: handlers.KindPermanent},
		{status: 400, kind: handlers.KindPermanent},
		{status: 404, after: "5", kind: handlers.KindPermanent},
		{status: 408, kind: handlers.KindRetryable},
		{status: 422, kind: handlers.KindPermanent},
		{status: 425, kind: handlers.KindRetryable},
		{status: 429, kind: handlers.KindUnavailable},
		{status: 429, after: "5", kind: handlers.KindUnavailable, waits: 5 * time.Second},
		{status: 429, after: later, kind: handlers.KindUnavailable, waits: 90 * time.Second},
		{status: 429, after: earlier, kind: handlers.KindUnavailable},
		{status: 429, after: "soon", kind: handlers.KindUnavailable},
		{status: 429, after: "-5", kind: handlers.KindUnavailable},
		{status: 429, after: "9999999999999", kind: handlers.KindUnavailable, waits: 24 * time.Hour},
		{status: 500, kind: handlers.KindRetryable},
		{status: 500, after: "7", kind: handlers.KindRetryable, waits: 7 * time.Second},
		{status: 502, kind: handlers.KindUnavailable},
		{status: 503, kind: handlers.KindUnavailable},
		{status: 504, kind: handlers.KindRetryable},
		{status: 599, kind: handlers.KindRetryable},
		{status: 999, kind: handlers.KindRetryable},
		{status: 503, after: "5", change: func(c *Config) { c.OnOutage = outageRetryable }, kind: handlers.KindRetryable, waits: 5 * time.Second},
		{status: 503, change: func(c *Config) { c.OutageStatus = nil }, kind: handlers.KindRetryable},
		{status: 429, change: func(c *Config) { c.OutageStatus = nil }, kind: handlers.KindPermanent},
		{status: 404, change: func(c *Config) { c.OutageStatus = []int{404} }, kind: handlers.KindUnavailable},
	} {
		t.Run(fmt.Sprint(c.status, c.after), func(t *testing.T) {
			e := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.status)
				if c.status != 304 {
					io.WriteString(w, "\n{\"error\":\x00\x1b[31m\"why\"}"+strings.Repeat("x", 1000))
				}
			})
			_, err := call(t, with(e.URL+"/path?token=hidden", c.change))
			begins := fmt.Sprintf("%s answered %d", e.URL, c.status)
			if c.status == 304 {
				expect(t, err, c.kind, c.waits, begins)
				return
			}
			expect(t, err, c.kind, c.waits, begins, `: {"error":  [31m"why"}xxx`)
			if strings.Contains(err.Error(), "hidden") {
				t.Errorf("a secret in %v", err)
			}
		})
	}
}

// request reads a request from a connection, but not its body.
func request(conn net.Conn) {
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil || line == "\r\n" {
			return
		}
	}
}

func saying(text string) func(net.Conn) {
	return func(conn net.Conn) {
		request(conn)
		io.WriteString(conn, text)
	}
}

// then goes on after f until the other side has gone.
func then(f, after func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		f(conn)
		after(conn)
	}
}

func stall(conn net.Conn) { io.Copy(io.Discard, conn) }

// flood writes until the other side has gone.
func flood(text string) func(net.Conn) {
	return func(conn net.Conn) {
		piece := bytes.Repeat([]byte(text), 1+64<<10/len(text))
		for {
			if _, err := conn.Write(piece); err != nil {
				return
			}
		}
	}
}

func TestEndpointsThatMisbehave(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name  string
		serve func(net.Conn)
		// stops says that the call ends with its timeout.
		stops bool
		kind  handlers.Kind
		says  string
	}{
		{"hangs up before the answer", request, false, handlers.KindRetryable, "waiting for the answer of "},
		{"never answers", stall, true, handlers.KindRetryable, "took longer than "},
		{"stops in the head", then(saying("HTTP/1.1 200"), stall), true, handlers.KindRetryable, "waiting for the answer of "},
		{"stops in the body", then(saying(ok+"Content-Length: 5\r\n\r\nab"), stall), true, handlers.KindRetryable, "200 OK: took longer than "},
		{"hangs up in the body", saying(ok + "Content-Length: 5\r\n\r\nab"), false, handlers.KindRetryable, "unexpected EOF"},
		{"hangs up between chunks", saying(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), false, handlers.KindRetryable, "unexpected EOF"},
		{"chunks that are none", saying(ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n"), false, handlers.KindRetryable, "reading the answer of "},
		{"speaks something else", saying(strings.Repeat("220 mail.example.com ESMTP ", 100) + "\r\n"), false, handlers.KindRetryable, "malformed"},
		{"two lengths", saying(ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"), false, handlers.KindRetryable, "waiting for the answer of "},
		{"promises 100 MB", then(saying(ok+"Content-Length: 104857600\r\n\r\n"), flood("x")), false, handlers.KindPermanent, "answered 200 OK with more than max_response, 1048576 bytes"},
		{"sends without end", then(saying(ok+"\r\n"), flood("x")), false, handlers.KindPermanent, "more than max_response, 1048576 bytes"},
		{"chunks without end", then(saying(ok+"Transfer-Encoding: chunked\r\n\r\n"), flood("2\r\nab\r\n")), false, handlers.KindPermanent, "more than max_response"},
		{"a head without end", then(saying(ok+"X-Long: "), flood("x")), false, handlers.KindRetryable, "headers exceeded"},
		{"headers without end", then(saying(ok), flood("A: b\r\n")), false, handlers.KindRetryable, "headers exceeded"},
		{"interim answers without end", then(saying(""), flood("HTTP/1.1 103 Early Hints\r\n\r\n")), false, handlers.KindRetryable, "waiting for the answer of "},
		{"an error without end", then(saying("HTTP/1.1 400 Bad Request\r\n\r\n"), flood("x")), false, handlers.KindPermanent, "400 Bad Request: xxx"},
		{"an error that stops", then(saying("HTTP/1.1 400 Bad Request\r\nContent-Length: 5\r\n\r\nab"), stall), true, handlers.KindPermanent, "400 Bad Request: ab"},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := raw(t, c.serve)
			if !c.stops {
				_, err := call(t, with(url, nil))
				expect(t, err, c.kind, 0, "", c.says)
				return
			}
			patiently(t, "the call ends as it should", func(timeout time.Duration) error {
				_, err := call(t, with(url, func(c *Config) { c.Timeout = timeout }))
				return differs(err, c.kind, 0, "", strings.Replace(c.says, "took longer than ", "took longer than "+timeout.String(), 1))
			})
		})
	}
}

// Where the answer's body isn't passed on, the status says all.
func TestTheBodyIsNotNeeded(t *testing.T) {
	for name, f := range map[string]func(net.Conn){
		"flood":    then(saying("HTTP/1.1 200 OK\r\n\r\n"), flood("x")),
		"cut":      saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"),
		"stalling": then(saying("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"), stall),
	} {
		url := raw(t, f)
		patiently(t, name+": the message is passed on", func(timeout time.Duration) error {
			out, err := call(t, with(url, func(c *Config) { c.Output, c.Timeout = outputMessage, timeout }))
			if err == nil && len(out) != 1 {
				err = fmt.Errorf("it became %v", out)
			}
			return err
		})
	}
}

func TestNobodyIsThere(t *testing.T) {
	const url = "http://127.0.0.1:1" // a port that nobody is given
	_, err := call(t, with(url, nil))
	expect(t, err, handlers.KindUnavailable, 0, "reaching "+url+": dial tcp 127.0.0.1:", "connection refused")
	_, err = call(t, with(url, func(c *Config) { c.OnOutage = outageRetryable }))
	expect(t, err, handlers.KindRetryable, 0, "reaching "+url)
}

// A kept connection that the endpoint closed in between is nobody's error.
func TestAConnectionThatWasClosedBetween(t *testing.T) {
	var requests atomic.Int32
	closed := make(chan struct{}, 1)
	url := raw(t, func(conn net.Conn) {
		request(conn)
		requests.Add(1)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		conn.Close()
		closed <- struct{}{}
	})
	h := build(t, with(url, nil))
	for range 5 {
		if _, err := handlertest.Handle(t.Context(), h, order()); err != nil {
			t.Fatal(err)
		}
		<-closed
	}
	if requests.Load() != 5 {
		t.Errorf("%d requests", requests.Load())
	}
}

func FuzzClip(f *testing.F) {
	f.Add("text")
	f.Add(strings.Repeat("ü", 200))
	f.Add("\x1b[2J\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		got := clip(s)
		if len(got) > maxQuoted+3 || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == '\x7f' || r == '\u2028' }) || strings.ToValidUTF8(got, "") != got {
			t.Errorf("%q", got)
		}
	})
}
