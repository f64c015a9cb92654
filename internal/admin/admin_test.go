package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/recording"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func TestMain(m *testing.M) { await.Main(m) }

// start returns a running listener on a free port.
func start(t *testing.T, change func(*Config)) *Server {
	t.Helper()
	c := Config{
		Addr:     "127.0.0.1:0",
		Version:  "v1.2.3",
		Logger:   slog.New(slog.DiscardHandler),
		Gatherer: prometheus.NewRegistry(),
		Health:   func() []Health { return nil },
		Devices:  func() []Device { return nil },
		Gate:     fakeGate{},
		Tap: func(context.Context, string) (<-chan *message.Message, error) {
			return nil, errors.New("there is no transport")
		},
		Record: func(_ context.Context, r RecordRequest) (iter.Seq[recording.Line], error) {
			return nil, fmt.Errorf("%s of %s, next %v", r.Device, r.Transport, r.Next)
		},
	}
	if change != nil {
		change(&c)
	}
	s := New(c)
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeGate is a Gate whose answer depends on the device's name.
type fakeGate struct{}

func (fakeGate) Kick(transport, name, reason string) (Kicked, error) {
	if name == "away" {
		return Kicked{}, device.ErrOffline
	}
	return Kicked{Device: name, Transport: transport, RemoteAddr: reason}, nil
}

func (fakeGate) Ban(_ context.Context, transport string, b device.Ban) (Ban, error) {
	out := Ban{Device: b.Device, Transport: transport, Since: b.Since, Reason: b.Reason, BanOutcome: &BanOutcome{Replaced: true}}
	if !b.Until.IsZero() {
		out.Until = &b.Until
	}
	switch b.Device {
	case "many":
		return Ban{}, device.ErrManyBans
	case "odd":
		return Ban{}, errors.New("strange")
	}
	return out, nil
}

func (fakeGate) Unban(_ context.Context, transport, name string) (Ban, error) {
	if name == "away" {
		return Ban{}, device.ErrNotBanned
	}
	return Ban{Device: name, Transport: transport}, nil
}

func (fakeGate) Bans() []Ban { return nil }

func client() *nethttp.Client {
	return &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true}}
}

// get asks and returns the status and the whole body.
func get(t *testing.T, s *Server, path string, header map[string]string) (int, string) {
	t.Helper()
	return ask(t, s, nethttp.MethodGet, path, header)
}

func ask(t *testing.T, s *Server, method, path string, header map[string]string) (int, string) {
	t.Helper()
	req, err := nethttp.NewRequestWithContext(t.Context(), method, "http://"+s.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	res, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestReadiness(t *testing.T) {
	works := []Health{{Name: "transport broker", Part: "connection"}, {Name: "pipeline data", Part: "handling"}}
	broken := []Health{
		works[0],
		{Name: "transport broker", Part: "topic commands", Err: errors.Join(errors.New("no queue"), errors.New("trying again"))},
	}
	noted := []Health{{Name: "transport web", Part: "listener", Note: "under pressure"}}
	for _, c := range []struct {
		name   string
		health []Health
		accept string
		status int
		body   string
	}{
		{"works", works, "", 200, "ok transport broker connection\nok pipeline data handling\n"},
		{"broken", broken, "*/*", 503, "ok transport broker connection\nfail transport broker topic commands: no queue; trying again\n"},
		{"JSON", works[:1], "application/json", 200, `{"ready":true,"parts":[{"name":"transport broker","part":"connection","ok":true}]}` + "\n"},
		{"broken JSON", broken[1:], "application/json", 503, `{"ready":false,"parts":[{"name":"transport broker","part":"topic commands","ok":false,"reason":"no queue\ntrying again"}]}` + "\n"},
		{"a note", noted, "", 200, "ok transport web listener: under pressure\n"},
		{"a note in JSON", noted, "application/json", 200, `{"ready":true,"parts":[{"name":"transport web","part":"listener","ok":true,"note":"under pressure"}]}` + "\n"},
		{"nothing", nil, "application/json", 200, `{"ready":true,"parts":[]}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, func(config *Config) { config.Health = func() []Health { return c.health } })
			status, body := get(t, s, "/readyz", map[string]string{"Accept": c.accept})
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			if diff := cmp.Diff(c.body, body); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "pentrough_test_total", Help: "Test."})
	registry.MustRegister(counter)
	counter.Inc()
	s := start(t, func(c *Config) { c.Gatherer = registry })
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/livez", 200, "ok\n"},
		{"GET", "/metrics", 200, "pentrough_test_total 1\n"},
		{"GET", "/api/v1/version", 200, `"version":"v1.2.3"`},
		{"GET", "/api/v1/devices", 200, `"devices":[]}`},
		{"GET", "/api/v1/tap", 400, "the topic is missing"},
		{"GET", "/api/v1/tap?topic=nowhere:x", 404, "there is no transport"},
		{"GET", "/api/v1/record", 400, "the device is missing"},
		{"GET", "/api/v1/record?device=d-1&transport=x&next=true", 404, "d-1 of x, next true"},
		{"GET", "/api/v1/devices/bans", 200, `"bans":[]}`},
		{"POST", "/api/v1/devices/kick?device=d-1&transport=x&reason=late", 200, `{"device":"d-1","transport":"x","remote_addr":"late","epoch":0}`},
		{"POST", "/api/v1/devices/kick", 400, "the device is missing"},
		{"POST", "/api/v1/devices/kick?device=away", 404, "device has no session"},
		{"GET", "/api/v1/devices/kick?device=d-1", 405, "Not Allowed"},
		{"POST", "/api/v1/devices/ban?device=d-1&reason=late", 200, `"reason":"late","replaced":true,"kicked":false,"stored":false}`},
		{"POST", "/api/v1/devices/ban?device=d-1&for=1h", 200, `"until":"`},
		{"POST", "/api/v1/devices/ban", 400, "the device is missing"},
		{"POST", "/api/v1/devices/ban?device=d-1&for=", 400, "for isn't a time above 0"},
		{"POST", "/api/v1/devices/ban?device=d-1&for=1d", 400, "for isn't a time above 0"},
		{"POST", "/api/v1/devices/ban?device=d-1&for=-1h", 400, "for isn't a time above 0"},
		{"POST", "/api/v1/devices/ban?device=many", 409, "10000 devices are banned already"},
		{"POST", "/api/v1/devices/ban?device=odd", 400, "strange"},
		{"POST", "/api/v1/devices/unban?device=d-1", 200, `{"device":"d-1","transport":"","since":`},
		{"POST", "/api/v1/devices/unban?device=away", 404, "isn't banned"},
		{"GET", "/", 404, "not found"},
		{"POST", "/livez", 405, "Not Allowed"},
	} {
		status, body := ask(t, s, c.method, c.path, nil)
		if status != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, body, c.status, c.body)
		}
	}
}

func TestForeignNames(t *testing.T) {
	// Who may call doesn't depend on which address is called.
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		s := start(t, func(c *Config) { c.Addr, c.Hosts = addr, []string{"Proxy.example.com"} })
		for host, want := range map[string]int{
			"localhost:8222": 200, "127.0.0.1:8222": 200, "[::1]": 200, "proxy.example.com:8222": 200,
			"rebound.example.com:8222": 403, "localhost.example.com": 403,
		} {
			if status, _ := get(t, s, "/livez", map[string]string{"Host": host}); status != want {
				t.Errorf("%s: Host %s: status %d, want %d", addr, host, status, want)
			}
		}
		for _, path := range []string{"/livez", "/api/v1/devices/ban?device=d-1"} {
			if status, _ := ask(t, s, nethttp.MethodPost, path, map[string]string{"Sec-Fetch-Site": "cross-site"}); status != 403 {
				t.Errorf("a POST to %s from another site: status %d, want 403", path, status)
			}
		}
	}
}

// tapOf makes a Config.Tap that shows what comes through msgs.
func tapOf(msgs <-chan *message.Message, ended chan<- string) func(context.Context, string) (<-chan *message.Message, error) {
	return func(ctx context.Context, ref string) (<-chan *message.Message, error) {
		out := make(chan *message.Message)
		go func() {
			defer func() { ended <- ref }()
			defer close(out)
			for {
				select {
				case msg := <-msgs:
					out <- msg
				case <-ctx.Done():
					return
				}
			}
		}()
		return out, nil
	}
}

func TestTap(t *testing.T) {
	msgs, ended := make(chan *message.Message), make(chan string, 1)
	s := start(t, func(c *Config) { c.Tap = tapOf(msgs, ended) })
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	res := open(ctx, t, s)

	lines := bufio.NewReader(res.Body)
	for _, c := range []struct{ payload, want string }{
		{"text", `{"uuid":"u-1","metadata":{"device":"d"},"payload":"text"}`},
		{"", `{"uuid":"u-1","metadata":{"device":"d"},"payload":""}`},
		{"\xff\x00", `{"uuid":"u-1","metadata":{"device":"d"},"payload_base64":"/wA="}`},
	} {
		msg := message.NewMessage("u-1", []byte(c.payload))
		msg.Metadata[transports.Device] = "d"
		msgs <- msg
		// Each line arrives while the tap is still open.
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want+"\n", line); diff != "" {
			t.Error(diff)
		}
	}
	hangUp()
	if ref := <-ended; ref != "devices:data" {
		t.Errorf("tapped %s", ref)
	}
}

func TestRecord(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Record = func(_ context.Context, r RecordRequest) (iter.Seq[recording.Line], error) {
			return func(yield func(recording.Line) bool) {
				_ = yield(recording.Line{Connection: &recording.Connection{Device: r.Device}}) &&
					yield(recording.Line{From: recording.FromDevice, Bytes: []byte("\u202e"), Text: "\u202e"})
			}, nil
		}
	})
	const want = `{"device":"d-1","host":"","transport":"","remote_addr":"","epoch":0,"whole":false}
{"from":"device","bytes":"e280ae","text":"\u202e"}
`
	if status, body := get(t, s, "/api/v1/record?device=d-1", nil); status != 200 || body != want {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := get(t, s, "/api/v1/record?device=d-1", map[string]string{"Sec-Fetch-Site": "cross-site"}); status != 403 {
		t.Errorf("from a page of another site: %d", status)
	}
	if status, body := ask(t, s, nethttp.MethodHead, "/api/v1/record?device=d-1", nil); status != 200 || body != "" {
		t.Errorf("HEAD: %d %s", status, body)
	}
}

// open begins a tap; its head comes before any message.
func open(ctx context.Context, t *testing.T, s *Server) *nethttp.Response {
	t.Helper()
	req, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodGet, "http://"+s.Addr().String()+"/api/v1/tap?topic=devices:data", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != nethttp.StatusOK {
		t.Fatalf("status %s", res.Status)
	}
	return res
}

func TestCloseEndsTaps(t *testing.T) {
	ended := make(chan string, 1)
	s := start(t, func(c *Config) { c.Tap = tapOf(nil, ended) })
	res := open(t.Context(), t, s)
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || len(body) > 0 {
		t.Errorf("the tap ended with %q, %v", body, err)
	}
	<-ended
}

// A client that opens many taps ends its own, the one that was idle longest first.
func TestAClientEndsItsOwnTaps(t *testing.T) {
	ended := make(chan string, 2*maxTapsOfOne)
	msgs := make(chan *message.Message)
	s := start(t, func(c *Config) { c.Tap = tapOf(msgs, ended) })
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	first := open(ctx, t, s)
	msgs <- message.NewMessage("u-1", []byte("text"))
	if _, err := bufio.NewReader(first.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	second := open(ctx, t, s)
	for range maxTapsOfOne - 1 {
		open(ctx, t, s)
	}
	// The first began before the second, and showed a message before the second began.
	if body, err := io.ReadAll(first.Body); err != nil || len(body) > 0 {
		t.Errorf("the idle tap ended with %q, %v", body, err)
	}
	open(ctx, t, s)
	if _, err := io.ReadAll(second.Body); err != nil {
		t.Errorf("the next idle tap ended with %v", err)
	}
	s.taps.mu.Lock()
	if n := len(s.taps.open); n != maxTapsOfOne {
		t.Errorf("%d taps are open", n)
	}
	s.taps.mu.Unlock()
	hangUp()
	for range maxTapsOfOne + 2 {
		<-ended
	}
}

// Clients that fill all places can't keep another one out, and one that is shown messages stays.
func TestNobodyIsLockedOut(t *testing.T) {
	var all taps
	begin := func(client int) (context.Context, *openTap) {
		r := httptest.NewRequestWithContext(t.Context(), nethttp.MethodGet, "/", nil)
		r.RemoteAddr = fmt.Sprintf("10.0.0.%d:4711", client)
		ctx, end := context.WithCancel(r.Context())
		t.Cleanup(end)
		return ctx, all.addTap(r, end)
	}
	oldest, busy := begin(0)
	second, _ := begin(1)
	for i := 2; i < maxTaps; i++ {
		begin(i)
	}
	all.markActive(busy)
	operator, _ := begin(200)
	if oldest.Err() != nil || operator.Err() != nil || second.Err() == nil {
		t.Errorf("the busy one: %v, the operator: %v, the idle one: %v", oldest.Err(), operator.Err(), second.Err())
	}
	all.endTap(busy)
	if len(all.open) != maxTaps-1 {
		t.Errorf("%d taps are open", len(all.open))
	}
}

// A request for a topic that can't be tapped doesn't end a tap, however many there are.
func TestARefusedTapEndsNoOther(t *testing.T) {
	ended := make(chan string, maxTapsOfOne)
	tap := tapOf(nil, ended)
	s := start(t, func(c *Config) {
		c.Tap = func(ctx context.Context, ref string) (<-chan *message.Message, error) {
			if ref == "devices:nothing" {
				return nil, errors.New("no such topic")
			}
			return tap(ctx, ref)
		}
	})
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	for range maxTapsOfOne {
		open(ctx, t, s)
	}
	if status, body := ask(t, s, nethttp.MethodGet, "/api/v1/tap?topic=devices:nothing", nil); status != 404 {
		t.Errorf("%d %s", status, body)
	}
	s.taps.mu.Lock()
	if n := len(s.taps.open); n != maxTapsOfOne {
		t.Errorf("%d taps are open", n)
	}
	s.taps.mu.Unlock()
	hangUp()
	for range maxTapsOfOne {
		<-ended
	}
}

func TestTapsOfOtherSites(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Tap = func(context.Context, string) (<-chan *message.Message, error) {
			t.Error("the topic is tapped")
			return nil, errors.New("no")
		}
	})
	for _, method := range []string{nethttp.MethodGet, nethttp.MethodHead} {
		for _, path := range []string{"/api/v1/tap?topic=devices:data", "/api/v1/devices"} {
			for _, header := range []map[string]string{{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://example.com"}, {"Origin": "null"}} {
				if status, body := ask(t, s, method, path, header); status != 403 {
					t.Errorf("%s %s with %v: %d %s", method, path, header, status, body)
				}
			}
		}
	}
	// Asking for the head alone opens nothing.
	if status, _ := ask(t, s, nethttp.MethodHead, "/api/v1/tap?topic=devices:data", nil); status != 200 {
		t.Errorf("HEAD: %d", status)
	}
}

func TestWhatIsUnseenIsEscaped(t *testing.T) {
	name := "a\u009b\u202eb"
	msgs, ended := make(chan *message.Message), make(chan string, 1)
	s := start(t, func(c *Config) {
		c.Tap = tapOf(msgs, ended)
		c.Devices = func() []Device { return []Device{{Device: name}} }
		c.Health = func() []Health { return []Health{{Name: name, Err: errors.New(name)}} }
	})
	for path, want := range map[string]string{"/api/v1/devices": `"device":"a\u009b\u202eb"`, "/readyz": `fail a\u009b\u202eb : a\u009b\u202eb`} {
		if _, body := get(t, s, path, nil); !strings.Contains(body, want) || strings.ContainsRune(body, 0x9b) {
			t.Errorf("%s: %q", path, body)
		}
	}
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	lines := bufio.NewReader(open(ctx, t, s).Body)
	msgs <- message.NewMessage("u-1", []byte(name))
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"payload":"a\u009b\u202eb"`) {
		t.Errorf("the tap: %q, %v", line, err)
	}
	hangUp()
	<-ended
}

func TestOff(t *testing.T) {
	s := New(Config{})
	if err := s.Start(t.Context()); err != nil {
		t.Error(err)
	}
	if s.Addr() != nil {
		t.Errorf("listening on %v", s.Addr())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	s := New(Config{Addr: taken.Addr().String(), Logger: slog.New(slog.DiscardHandler)})
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "listening on "+taken.Addr().String()+" for admin: ") {
		t.Errorf("Start: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Start(t.Context()); err == nil {
		t.Error("Start works after Close")
	}
}

func TestWarnsOfOpenListener(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
		var log bytes.Buffer
		start(t, func(c *Config) {
			c.Addr, c.Logger, c.Gatherer = addr, slog.New(slog.NewJSONHandler(&log, nil)), prometheus.NewRegistry()
		})
		warned := false
		for line := range strings.Lines(log.String()) {
			var entry struct{ Level string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatal(err)
			}
			warned = warned || entry.Level == "WARN"
		}
		if warned != want {
			t.Errorf("listening on %s logs %s", addr, log.String())
		}
	}
}

// Strangers that take all places keep nobody from asking how the host is.
func TestStrangersKeepNobodyOut(t *testing.T) {
	const places = 10
	for name, say := range map[string]string{
		"silent":      "",
		"half a head": "GET /livez HTTP/1.1\r\nHost: loc",
		"half a body": "POST /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\naa",
		"refused":     "GET /livez HTTP/1.1\r\nHost: rebound.example.com\r\n\r\n",
		"idle":        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"tapping":     "GET /api/v1/tap?topic=devices:data HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan string, 3*places)
			s := start(t, func(c *Config) { c.Connections, c.Tap = places, tapOf(nil, ended) })
			for range 3 * places {
				conn, err := net.Dial("tcp", s.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, say) // it may be displaced already
			}
			if status, body := get(t, s, "/livez", nil); status != 200 {
				t.Errorf("%d %s", status, body)
			}
		})
	}
}

// A request that is refused gives its place back at once.
func TestRefusedRequestsAreClosed(t *testing.T) {
	s := start(t, nil)
	for _, header := range []map[string]string{{"Host": "rebound.example.com"}, {"Sec-Fetch-Site": "cross-site"}} {
		for _, c := range []struct{ method, path string }{{nethttp.MethodGet, "/api/v1/devices"}, {nethttp.MethodPost, "/livez"}} {
			req, err := nethttp.NewRequestWithContext(t.Context(), c.method, "http://"+s.Addr().String()+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range header {
				if name == "Host" {
					req.Host = value
				}
				req.Header.Set(name, value)
			}
			res, err := nethttp.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != 403 || !res.Close {
				t.Errorf("%s %s with %v: %s, closed: %v", c.method, c.path, header, res.Status, res.Close)
			}
		}
	}
}
