package http

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
)

// rounds is how often a race with a caller is run.
const rounds = 20

// rawCaller is a connection whose sending side can be closed on its own, as `nc -N` does.
type rawCaller struct{ *net.TCPConn }

func callRaw(t *testing.T, s *server, request string) rawCaller {
	t.Helper()
	c, err := s.dial(t.Context(), "tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(await.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return rawCaller{c.(*net.TCPConn)}
}

func (c rawCaller) halfClose(t *testing.T) {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// answer reads the response, and that nothing comes after it.
func (c rawCaller) answer() response {
	r := bufio.NewReader(c)
	res, err := nethttp.ReadResponse(r, nil)
	if err != nil {
		return response{err: err}
	}
	body, err := io.ReadAll(res.Body)
	if err == nil {
		if _, more := r.ReadByte(); !errors.Is(more, io.EOF) {
			err = errors.New("the connection stays open")
		}
	}
	return response{res, string(body), err}
}

// whole is a request with the id that async gives.
func whole(target string) string {
	return "POST " + target + " HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: " + asyncID + "\r\nContent-Length: 1\r\n\r\na"
}

func TestHalfCloseWithdrawsWhatWaits(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	first := async(t.Context(), s, "/x", "first")
	msg := <-out
	for range rounds {
		c := callRaw(t, s, whole("/x"))
		c.halfClose(t)
		c.answer().expect(t, 503, "not taken: the caller closed its side of the connection")
	}
	s.awaitState(t, "1 unsettled, 0 waiting")
	msg.Settle(handled)
	(<-first).expect(t, 200, "")
	last := async(t.Context(), s, "/x", "last")
	if msg = <-out; string(msg.Payload) != "last" {
		t.Errorf("%q was handed out after its caller was told that it wasn't taken", msg.Payload)
	}
	msg.Settle(handled)
	(<-last).expect(t, 200, "")
}

func TestHalfCloseAfterHandingOut(t *testing.T) {
	result := []*message.Message{messageOf("result", `{"id":"id-1","code":200}`)}
	answer := make(chan *message.Message, rounds)
	for range rounds {
		answer <- result[0]
	}
	for _, c := range []struct {
		name    string
		outcome *transports.Outcome
		status  int
		reason  string
	}{
		{"done", &transports.Outcome{Code: 200, Messages: result}, 200, ""},
		{"answered from beyond", &transports.Outcome{Code: 200, Published: true, Answer: answer}, 200, ""},
		{"given up", &transports.Outcome{Code: 400, Err: errors.New("the reason")}, 400, "the reason"},
		{"handed back", nil, 503, "undecided: repeat with the same id"},
		{"unavailable", &transports.Outcome{Code: 503}, 503, "undecided: repeat with the same id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, nil)
			out := subscribe(t, s)
			for range rounds {
				caller := callRaw(t, s, whole("/x?wait=50s"))
				d := <-out
				caller.halfClose(t)
				<-d.Context.Done()
				if cause := context.Cause(d.Context); !errors.Is(cause, transports.ErrVoid) {
					t.Errorf("the delivery's context ended with %v, want ErrVoid", cause)
				}
				d.Settle(c.outcome)
				caller.answer().expect(t, c.status, c.reason)
			}
			s.awaitState(t, "0 unsettled, 0 waiting")
		})
	}
}

// The request and the end of the stream arrive at once: the message is withdrawn or handled, and
// the caller learns which.
func TestHalfCloseAtOnce(t *testing.T) {
	s := start(t, nil)
	var taken atomic.Bool
	consume(t.Context(), t, s, func(d *transports.Delivery) {
		taken.Store(true)
		d.Settle(handled)
	})
	for range rounds {
		taken.Store(false)
		caller := callRaw(t, s, whole("/x"))
		caller.halfClose(t)
		res := caller.answer()
		if taken.Load() {
			res.expect(t, 200, "")
		} else {
			res.expect(t, 503, "not taken: the caller closed its side")
		}
	}
}

func TestHalfCloseInTheBody(t *testing.T) {
	s := start(t, nil)
	consume(t.Context(), t, s, func(*transports.Delivery) { t.Error("half a body is a message") })
	for range rounds {
		caller := callRaw(t, s, "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa")
		caller.halfClose(t)
		if res := caller.answer(); res.err != nil || res.StatusCode != 400 || res.reason() != "reading the body: unexpected EOF" {
			t.Errorf("%+v, want 400", res)
		}
	}
}

// writer records the answer.
type writer struct {
	header nethttp.Header
	status []int
	body   strings.Builder
}

func (w *writer) Header() nethttp.Header         { return w.header }
func (w *writer) WriteHeader(status int)         { w.status = append(w.status, status) }
func (w *writer) Write(body []byte) (int, error) { return w.body.Write(body) }

// scene is a request to /x, and what acts on it while its handler waits.
type scene struct {
	*server
	sub    transports.Subscriber
	out    chan *transports.Delivery
	answer chan *message.Message // from beyond the host
	cancel func()                // the subscription
	hangUp func()
}

// A handler that writes nothing says 200, so every way through it must write.
func TestEveryRequestIsAnswered(t *testing.T) {
	type change func(*scene, *nethttp.Request)
	set := func(name, value string) change {
		return func(_ *scene, r *nethttp.Request) { r.Header.Set(name, value) }
	}
	body := func(b io.Reader) change {
		return func(_ *scene, r *nethttp.Request) { r.Body = io.NopCloser(b) }
	}
	type step func(*testing.T, *scene)
	hangUp := func(_ *testing.T, s *scene) { s.hangUp() }
	quiesce := func(_ *testing.T, s *scene) { s.Quiesce() }
	cancel := func(_ *testing.T, s *scene) { s.cancel() }
	closeSubscriber := func(_ *testing.T, s *scene) { _ = s.sub.Close() }
	closeTransport := func(_ *testing.T, s *scene) { _ = s.Close(context.Background()) }
	settle := func(o *transports.Outcome) step {
		return func(_ *testing.T, s *scene) { (<-s.out).Settle(o) }
	}
	publish := func(_ *testing.T, s *scene) {
		(<-s.out).Settle(&transports.Outcome{Code: 200, Published: true, Answer: s.answer})
	}

	for _, c := range []struct {
		name           string
		method, target string // POST, /x?wait=1m
		change         change // of the request
		full           bool   // the window is
		before, then   []step // before the request came, and while it waits
		status         int
		reason         string
	}{
		{name: "no access", change: set("Authorization", ""), status: 401, reason: "a bearer token is needed"},
		{name: "another site", change: set("Sec-Fetch-Site", "cross-site"), status: 403, reason: "other sites"},
		{name: "no topic", target: "/y", status: 404, reason: "no topic"},
		{name: "another method", method: "GET", status: 405, reason: "POST"},
		{name: "bad query", target: "/x?wiat=1s", status: 400, reason: "wiat"},
		{name: "bad header", change: set("Idempotency-Key", "a\tb"), status: 400, reason: "Idempotency-Key"},
		{name: "large body", change: body(strings.NewReader(strings.Repeat("a", 11))), status: 413, reason: "larger than 10 bytes"},
		{name: "late body", change: body(iotest.ErrReader(os.ErrDeadlineExceeded)), status: 408, reason: "didn't arrive"},
		{name: "half a body", change: body(iotest.ErrReader(io.ErrUnexpectedEOF)), status: 400, reason: "reading the body"},
		{name: "stopping", before: []step{quiesce}, status: 503, reason: "not taken: the host is stopping"},
		{name: "cancelled", before: []step{cancel}, status: 503, reason: "not taken: no pipeline"},
		{name: "cancelled during the body", change: func(s *scene, r *nethttp.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader("a"), readerFunc(s.cancel)))
		}, status: 503, reason: "not taken: no pipeline"},

		{name: "waiting, too long", full: true, status: 503, reason: "not taken: too many messages"},
		{name: "waiting, gone", full: true, then: []step{hangUp}, status: 503, reason: "not taken: the caller closed"},
		{name: "waiting, gone before", full: true, before: []step{hangUp}, status: 503, reason: "not taken: the caller closed"},
		{name: "waiting, stopping", full: true, then: []step{quiesce}, status: 503, reason: "not taken: the host is stopping"},
		{name: "waiting, cancelled", full: true, then: []step{cancel}, status: 503, reason: "not taken: no pipeline"},
		{name: "waiting, subscriber closed", full: true, then: []step{closeSubscriber}, status: 503, reason: "not taken: no pipeline"},
		{name: "waiting, closed", full: true, then: []step{closeTransport}, status: 503, reason: "not taken: "},

		{name: "out, too long", status: 503, reason: "undecided"},
		{name: "out, handed back", then: []step{settle(nil)}, status: 503, reason: "undecided"},
		{name: "out, handled", then: []step{settle(handled)}, status: 200},
		{name: "out, given up", then: []step{settle(&transports.Outcome{Code: 500})}, status: 500, reason: "Internal Server Error"},
		{name: "out, unavailable", then: []step{settle(&transports.Outcome{Code: 503})}, status: 503, reason: "undecided"},
		{name: "out, subscriber closed", then: []step{closeSubscriber}, status: 503, reason: "undecided"},
		{name: "out, closed", then: []step{closeTransport}, status: 503, reason: "undecided"},
		{name: "out, stopping and handled", then: []step{quiesce, cancel, settle(handled)}, status: 200},
		{name: "out, gone", then: []step{hangUp}, status: 503, reason: "undecided"},
		{name: "out, gone and handled", then: []step{hangUp, settle(handled)}, status: 200},
		{name: "out, gone and handed back", then: []step{hangUp, settle(nil)}, status: 503, reason: "undecided"},
		{name: "out, gone and subscriber closed", then: []step{hangUp, closeSubscriber}, status: 503, reason: "undecided"},
		{name: "out, gone and closed", then: []step{hangUp, closeTransport}, status: 503, reason: "undecided"},

		{name: "published", then: []step{settle(&transports.Outcome{Code: 200, Published: true})}, status: 202},
		{name: "published, no answer in time", then: []step{publish}, status: 202},
		{name: "published, no answer will come", then: []step{publish, func(_ *testing.T, s *scene) { close(s.answer) }}, status: 202},
		{name: "published, closed", then: []step{publish, closeTransport}, status: 202},
		{name: "published, gone and answered", then: []step{publish, hangUp, func(_ *testing.T, s *scene) {
			s.answer <- messageOf("", `{"code":504}`)
		}}, status: 504},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scene{out: make(chan *transports.Delivery, room), answer: make(chan *message.Message, 1)}
				s.server = build(t, func(config *Config) {
					config.Token, config.MaxBody, config.Window = "s3cret", 10, 1
				}, slog.New(slog.DiscardHandler))
				var ctx, caller context.Context
				ctx, s.cancel = context.WithCancel(t.Context())
				caller, s.hangUp = context.WithCancel(t.Context())
				s.sub, _ = consume(ctx, t, s.server, func(d *transports.Delivery) { s.out <- d })
				act := func(steps []step) {
					for _, do := range steps {
						do(t, s)
						synctest.Wait()
					}
				}

				serve := func(method, target string, change change) *writer {
					r := httptest.NewRequestWithContext(caller, cmp.Or(method, "POST"), cmp.Or(target, "/x?wait=1m"), strings.NewReader("a"))
					r.Header.Set("Authorization", "Bearer s3cret")
					if change != nil {
						change(s, r)
					}
					w := &writer{header: nethttp.Header{}}
					go s.ServeHTTP(w, r)
					synctest.Wait()
					return w
				}
				if c.full {
					serve("", "", nil)
					<-s.out
					caller, s.hangUp = context.WithCancel(t.Context())
				}
				act(c.before)
				w := serve(c.method, c.target, c.change)
				act(c.then)
				time.Sleep(2 * s.config.MaxWait) // longer than any wait
				synctest.Wait()
				if len(w.status) != 1 || w.status[0] != c.status || w.header.Get("Content-Length") != strconv.Itoa(w.body.Len()) || w.body.Len() == 0 {
					t.Errorf("answered with %v %v %q, want %d", w.status, w.header, w.body.String(), c.status)
				}
				if !strings.Contains(w.body.String(), c.reason) {
					t.Errorf("the body is %q, want %q", w.body.String(), c.reason)
				}
			})
		})
	}
}

// readerFunc is an empty body that does something when it is read.
type readerFunc func()

func (f readerFunc) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func TestSettleTwice(t *testing.T) {
	s := start(t, func(c *Config) { c.Window = 1 })
	out := subscribe(t, s)
	first := async(t.Context(), s, "/x", "first")
	msg := <-out
	msg.Settle(&transports.Outcome{Code: 400, Err: errors.New("the first")})
	msg.Settle(handled)
	msg.Settle(nil)
	(<-first).expect(t, 400, "the first")

	// One place came free, once.
	second := async(t.Context(), s, "/x", "second")
	next := <-out
	msg.Settle(handled)
	third := async(t.Context(), s, "/x", "third")
	s.awaitState(t, "1 unsettled, 1 waiting")
	next.Settle(handled)
	(<-second).expect(t, 200, "")
	(<-out).Settle(handled)
	(<-third).expect(t, 200, "")
}

func TestSettleAfterClose(t *testing.T) {
	s := start(t, nil)
	out := make(chan *transports.Delivery, room)
	sub, done := consume(t.Context(), t, s, func(d *transports.Delivery) { out <- d })
	res := async(t.Context(), s, "/x", "a")
	d := <-out
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
	(<-res).expect(t, 503, "undecided")
	d.Settle(handled)

	// The path may be subscribed to again.
	handle(t, s, handled)
	(<-async(t.Context(), s, "/x", "b")).expect(t, 200, "")
}

// Each delivery is settled or void, whichever happens first, and its caller learns which.
func TestSettleWhileClosing(t *testing.T) {
	for range rounds {
		s := start(t, nil)
		out := make(chan *transports.Delivery, room)
		sub, done := consume(t.Context(), t, s, func(d *transports.Delivery) { out <- d })
		var calls []<-chan response
		var deliveries []*transports.Delivery
		for range 5 {
			calls = append(calls, async(t.Context(), s, "/x", "a"))
			deliveries = append(deliveries, <-out)
		}
		var both sync.WaitGroup
		both.Go(func() {
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			for _, d := range deliveries {
				d.Settle(handled)
			}
		})
		both.Wait()
		<-done
		for _, call := range calls {
			if res := <-call; res.err == nil && res.StatusCode == 200 {
				res.expect(t, 200, "")
			} else {
				res.expect(t, 503, "undecided")
			}
		}
	}
}
