package http

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// startWithBudget starts a transport whose bodies may use limit bytes.
func startWithBudget(t *testing.T, limit int) (*server, *transports.Budget) {
	t.Helper()
	s := build(t, nil, slog.New(slog.DiscardHandler))
	s.env.Memory.Bodies = transports.NewBudget(limit)
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, s.env.Memory.Bodies
}

// stall sends a head, and leaves the connection open.
func stall(t *testing.T, s *server, head string) net.Conn {
	t.Helper()
	c, err := s.dial(t.Context(), "tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, "POST /x HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	return c
}

// However many callers stop in the middle of a body, all of them together take the budget at most.
func TestBodiesThatStopStayWithinTheBudget(t *testing.T) {
	const limit, part = 400 << 10, 70_000
	for what, head := range map[string]string{
		"with a length": fmt.Sprintf("Content-Length: %d", part+1),
		"in chunks":     "Transfer-Encoding: chunked",
		"gzip":          fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d", part+1),
	} {
		t.Run(what, func(t *testing.T) {
			s, budget := startWithBudget(t, limit)
			handle(t, s, handled)
			var conns []net.Conn
			stop := func() {
				c := stall(t, s, head)
				if strings.Contains(head, "chunked") {
					_, _ = fmt.Fprintf(c, "%x\r\n", 2*part)
				}
				_, _ = io.WriteString(c, strings.Repeat("a", part)) // it may be refused half-way
				conns = append(conns, c)
			}
			for range 20 {
				stop()
			}
			await.That(t, "no further body has room", func() (any, bool) {
				stop() // those that came at the same time may have refused each other
				if used := budget.Used(); used > limit {
					t.Fatalf("%d bytes are taken", used)
				}
				res := request(t.Context(), s, nethttp.MethodPost, "/x", strings.Repeat("a", part), map[string]string{"Idempotency-Key": asyncID})
				return res.StatusCode, res.StatusCode == nethttp.StatusServiceUnavailable
			})
			res := <-async(t.Context(), s, "/x", strings.Repeat("a", part))
			res.expect(t, 503, noRoom)
			(<-async(t.Context(), s, "/x", "small")).expect(t, 200, "")
			for _, c := range conns {
				c.Close()
			}
			await.That(t, "all is given back", func() (any, bool) { return budget.Used(), budget.Used() == 0 })
			(<-async(t.Context(), s, "/x", strings.Repeat("a", part))).expect(t, 200, "")
		})
	}
}

// Callers that stop in the middle of small bodies don't keep others out: the oldest are refused.
func TestASmallBodyDisplacesThoseThatStop(t *testing.T) {
	const limit, part = 100 << 10, 20_000
	s, budget := startWithBudget(t, limit)
	handle(t, s, handled)
	var first net.Conn
	for range 20 {
		c := stall(t, s, fmt.Sprintf("Content-Length: %d", part+1))
		_, _ = io.WriteString(c, strings.Repeat("a", part)) // it may be refused half-way
		if first == nil {
			first = c
			await.That(t, "the first body is read", func() (any, bool) { return budget.Used(), budget.Used() > part })
		}
	}
	answer, err := io.ReadAll(first)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503 ") || !strings.Contains(string(answer), noRoom) {
		t.Errorf("the oldest caller was answered %q, %v", answer, err)
	}
	for range 10 {
		(<-async(t.Context(), s, "/x", strings.Repeat("a", part))).expect(t, 200, "")
		if used := budget.Used(); used > limit {
			t.Errorf("%d bytes are taken", used)
		}
	}
}

// A body counts until its request is answered, so the bodies of waiting requests are limited, too.
func TestBodiesCountUntilTheAnswer(t *testing.T) {
	s, budget := startWithBudget(t, 10_000)
	out := subscribe(t, s)
	first := async(t.Context(), s, "/x", strings.Repeat("a", 8000))
	msg := <-out
	(<-async(t.Context(), s, "/x", strings.Repeat("a", 8000))).expect(t, 503, noRoom)
	msg.Settle(handled)
	(<-first).expect(t, 200, "")
	await.That(t, "all is given back", func() (any, bool) { return budget.Used(), budget.Used() == 0 })
	large := async(t.Context(), s, "/x", strings.Repeat("a", 20_000)) // larger than the budget
	(<-out).Settle(handled)
	(<-large).expect(t, 200, "")
}
