package tcp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
	_ "github.com/pentrough/pentrough/transports/codec/line"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/transporttest"
)

// With these environment variables the test binary only opens idle connections to an address: a
// number of them.
const (
	dialAddr  = "PENTROUGH_TEST_DIAL_ADDR"
	dialCount = "PENTROUGH_TEST_DIAL_COUNT"
)

func TestMain(m *testing.M) {
	if addr := os.Getenv(dialAddr); addr != "" {
		if err := idle(addr, os.Getenv(dialCount)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runTwice(m))
}

// idle opens connections from as many addresses, says so, and keeps them until its input ends.
func idle(addr, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	for i := range n {
		conn, err := dialFrom(context.Background(), i, addr)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// dialFrom dials from the i-th address of 127.1.0.0/16.
func dialFrom(ctx context.Context, i int, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
	conn, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return nil, err
	}
	return secure(conn), nil
}

// server is a started transport with consumers of both topics.
type server struct {
	*testing.T
	*transport
	addr   string
	log    *logBuffer
	events <-chan *message.Message
	data   <-chan *message.Message
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func testConfig() *Config {
	c := defaults
	c.Listen = new("127.0.0.1:0")
	c.Framing = codec.Named("line")
	if overTLS {
		c.TLS = serverTLS()
		c.Identity.Timeout = await.Patience // a busy machine takes long for many handshakes
	}
	return &c
}

func env(log io.Writer) transports.Env {
	return transports.Env{
		Name: "devices", Host: "host-1", Logger: slog.New(slog.NewTextHandler(log, nil)), Now: time.Now, Registerer: prometheus.NewRegistry(),
	}
}

// build makes and starts a transport.
func build(t *testing.T, change func(*Config)) *server {
	t.Helper()
	return buildWith(t, change, nil)
}

// buildWith makes and starts a transport with an inventory.
func buildWith(t *testing.T, change func(*Config), known device.Inventory) *server {
	t.Helper()
	s := prepare(t, change, known)
	s.begin()
	return s
}

// prepare makes a transport that isn't started yet.
func prepare(t *testing.T, change func(*Config), known device.Inventory) *server {
	t.Helper()
	c := testConfig()
	if change != nil {
		change(c)
	}
	log := &logBuffer{}
	tr, err := c.New(env(log))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{T: t, transport: tr.(*transport), log: log}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), await.Patience)
		defer cancel()
		if err := tr.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if known != nil {
		s.Screen(known)
	}
	return s
}

func (s *server) begin() {
	s.Helper()
	if err := s.Start(s.Context()); err != nil {
		s.Fatal(err)
	}
	if s.listener != nil {
		s.addr = s.listener.Addr().String()
	}
}

// start makes and starts a transport, and consumes both topics from the start.
func start(t *testing.T, change func(*Config)) *server {
	t.Helper()
	return startWith(t, change, nil)
}

// startWith is start with an inventory.
func startWith(t *testing.T, change func(*Config), known device.Inventory) *server {
	t.Helper()
	s := prepare(t, change, known)
	s.events, s.data = s.subscribe(device.EventsTopic), s.subscribe(device.DataTopic)
	s.begin()
	return s
}

func (s *server) subscribe(topic string) <-chan *message.Message {
	s.Helper()
	sub, err := s.Subscriber(transports.Consumer{Pipeline: topic})
	if err != nil {
		s.Fatal(err)
	}
	c, err := transporttest.Stock(sub).Subscribe(s.Context(), topic)
	if err != nil {
		s.Fatal(err)
	}
	return c
}

// event returns the next event of a device.
func (s *server) event() device.Event {
	s.Helper()
	for {
		var e device.Event
		s.receive(s.events, &e)
		if e.Type != device.HostEvent {
			return e
		}
	}
}

// expect holds that the next event is this one.
func (s *server) expect(kind device.EventType, name string, reason device.Reason) device.Event {
	s.Helper()
	e := s.event()
	if e.Type != kind || e.Device != name || e.Reason != reason || e.Online != (kind == device.Connected) {
		s.Fatalf("got the event %+v, want %s of %s, %s", e, kind, name, reason)
	}
	return e
}

func (s *server) receive(c <-chan *message.Message, v any) {
	s.Helper()
	msg := await.Receive(s.T, "a message of the topic", c)
	if err := json.Unmarshal(msg.Payload, v); err != nil {
		s.Fatal(err)
	}
	msg.Ack()
}

// frame returns the next data's payload.
func (s *server) frame() string {
	s.Helper()
	var d device.Data
	s.receive(s.data, &d)
	return d.Payload
}

// send enqueues a command and returns its fate.
func (s *server) send(name, cmd string) device.Written {
	s.Helper()
	w, err := s.Devices().Enqueue(name, []byte(cmd), device.EnqueueOptions{})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.Context(), await.Patience)
	defer cancel()
	return w.Wait(ctx)
}

// peer is the device's end of a connection.
type peer struct {
	*testing.T
	net.Conn
	r *bufio.Reader
}

func (s *server) dial() *peer {
	s.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	return newPeer(s.T, secure(conn), nil)
}

// dialAs dials from the i-th address of 127.1.0.0/16 and returns that too.
func (s *server) dialAs(i int) (*peer, string) {
	s.Helper()
	conn, err := dialFrom(s.Context(), i, s.addr)
	p := newPeer(s.T, conn, err)
	return p, p.LocalAddr().(*net.TCPAddr).IP.String()
}

func newPeer(t *testing.T, conn net.Conn, err error) *peer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(await.Patience)); err != nil {
		t.Fatal(err)
	}
	return &peer{T: t, Conn: conn, r: bufio.NewReader(conn)}
}

func (p *peer) say(text string) {
	p.Helper()
	if _, err := io.WriteString(p.Conn, text); err != nil {
		p.Fatal(err)
	}
}

// hear holds that this is what comes next.
func (p *peer) hear(want string) {
	p.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(p.r, got); err != nil || string(got) != want {
		p.Fatalf("got %q, %v; want %q", got[:n], err, want)
	}
}

// closed holds that the other end closes the connection.
func (p *peer) closed() {
	p.Helper()
	if n, err := io.Copy(io.Discard, p.r); errors.Is(err, os.ErrDeadlineExceeded) {
		p.Fatalf("waited %s until the host closes the connection; it sent %d bytes and left it open", await.Patience, n)
	}
}

// logged waits until the log has a text.
func (s *server) logged(text string) {
	s.Helper()
	await.That(s.T, fmt.Sprintf("the log says %q", text), func() (any, bool) {
		log := s.log.String()
		return log, strings.Contains(log, text)
	})
}

// strangers waits until want connections have no session.
func (s *server) strangers(want int) {
	s.Helper()
	await.That(s.T, fmt.Sprintf("%d connections have no session", want), func() (any, bool) {
		s.mu.Lock()
		all := len(s.conns)
		s.mu.Unlock()
		got := all - s.sessions()
		return fmt.Sprintf("%d of %d", got, all), got == want
	})
}

// refused counts the connections that were refused for a reason.
func (s *server) refused(reason string) float64 {
	return testutil.ToFloat64(s.metrics.refused.WithLabelValues(reason))
}

// only returns the one connection that there is.
func (s *server) only() *conn {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 1 {
		s.Fatalf("there are %d connections", len(s.conns))
	}
	for c := range s.conns {
		return c
	}
	return nil
}

// payload returns the frame that a message carries.
func payload(msg *message.Message) string {
	var d device.Data
	if err := json.Unmarshal(msg.Payload, &d); err != nil {
		return err.Error()
	}
	return d.Payload
}
