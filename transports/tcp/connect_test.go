package tcp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/internal/testenv/certs"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// station is a device that is a server.
type station struct {
	*testing.T
	net.Listener
	cert tls.Certificate
}

func newStation(t *testing.T) *station {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &station{t, l, pki.server.TLS}
}

func (s *station) addr() string { return s.Addr().String() }

// accept returns the device's end of the next connection.
func (s *station) accept() *peer {
	s.Helper()
	conn, err := s.Accept()
	if err == nil && overTLS {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{s.cert}})
	}
	p := newPeer(s.T, conn, err)
	if c, ok := conn.(*tls.Conn); ok {
		_ = c.Handshake() // the first read or write has the error, too
	}
	return p
}

// dials makes a configuration that only dials one device.
func dials(name, addr string, change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Listen, c.TLS = nil, nil
		c.Connect = []connectTo{{name, addr}}
		c.Reconnect = transports.Reconnect{InitialInterval: time.Millisecond, MaxInterval: 5 * time.Millisecond}
		if overTLS {
			c.ConnectTLS = &transports.TLS{CA: pki.ca.Cert}
		}
		if change != nil {
			change(c)
		}
	}
}

// tried waits until at least n attempts had an outcome.
func (s *server) tried(outcome string, n float64) {
	s.Helper()
	await.That(s.T, fmt.Sprintf("%v attempts: %s", n, outcome), func() (any, bool) {
		got := testutil.ToFloat64(s.metrics.dials.WithLabelValues(outcome))
		return fmt.Sprint(got, s.registry.Failures()), got >= n
	})
}

// lines counts the lines of the log with a text.
func (s *server) lines(text string) int { return strings.Count(s.log.String(), text) }

const (
	isDown = "the connection to a device doesn't work, trying again"
	isBack = "the connection to a device works again"
)

func TestADialedDevice(t *testing.T) {
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), nil))
	d := rtu.accept()
	e := s.expect(device.Connected, "rtu-7", "")
	if e.RemoteAddr != rtu.addr() {
		t.Errorf("got %+v", e)
	}
	if w := s.send("rtu-7", "open"); w.Fate != device.Sent {
		t.Errorf("got %+v", w)
	}
	d.hear("open\r\n")
	d.say("done\n")
	if got := s.datum(); got.Payload != "done" || got.Device != "rtu-7" {
		t.Errorf("got %+v", got)
	}
	if h := s.Health(); len(h) != 1 || h[0].Err != nil || h[0].Part != "connect" || h[0].Note != "1 of 1 dialed devices are connected" {
		t.Errorf("%+v", h)
	}
	if got := s.gate.State(); got.Kept != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := s.Devices().Canonical("rtu-8"); err == nil || !strings.Contains(err.Error(), `connect has no device "rtu-8"`) {
		t.Errorf("another name: %v", err)
	}
	d.Close()
	if again := s.expect(device.Disconnected, "rtu-7", device.ClientClosed); again.Epoch != e.Epoch {
		t.Errorf("got %+v", again)
	}
	rtu.accept()
	if again := s.expect(device.Connected, "rtu-7", ""); again.Epoch <= e.Epoch {
		t.Errorf("got %+v", again)
	}
}

// A device that is down is logged once, and once when it is back. The host stays ready.
func TestADialedDeviceIsDown(t *testing.T) {
	rtu := newStation(t)
	addr := rtu.addr()
	rtu.Close()
	s := start(t, dials("rtu-7", addr, nil))
	s.tried(dialUnreachable, 20)
	if s.lines(isDown) != 1 || s.lines("connection refused") != 1 {
		t.Errorf("the log:\n%s", s.log)
	}
	lister := s.Devices().(device.Lister)
	if got := lister.Failures()["rtu-7"].Text; got != "dialing "+addr+": connect: connection refused" {
		t.Errorf("the last error is %q", got)
	}
	if h := s.Health()[0]; h.Err != nil || h.Note != "0 of 1 dialed devices are connected" || lister.Dialed()["rtu-7"] != addr {
		t.Errorf("%+v", h)
	}
	if _, err := s.Devices().Enqueue("rtu-7", []byte("x"), device.EnqueueOptions{}); !errors.Is(err, device.ErrOffline) {
		t.Errorf("a command: %v", err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	rtu.Listener = l
	defer l.Close()
	rtu.accept()
	s.expect(device.Connected, "rtu-7", "")
	s.logged(isBack)
	if s.lines(isDown) != 1 || s.lines(isBack) != 1 {
		t.Errorf("the log:\n%s", s.log)
	}
}

// A device that closes each connection at once, as one does whose only connection another host
// takes, is dialed with growing pauses and logged once.
func TestBriefConnectionsAreNoSuccess(t *testing.T) {
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) { c.Reconnect.MaxInterval = time.Hour }))
	for range 9 {
		rtu.accept().Close()
	}
	s.tried(dialConnected, 9)
	s.dialer.mu.Lock()
	failures := s.dialer.targets[0].failures
	s.dialer.mu.Unlock()
	if s.lines(isDown) != 1 || s.lines(isBack) != 0 || failures < maxFailures-1 {
		t.Errorf("%d failures; the log:\n%s", failures, s.log)
	}
}

func TestASteadyConnectionBeginsThePausesAnew(t *testing.T) {
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) { c.Reconnect.MaxInterval = 100 * time.Millisecond }))
	for range 3 {
		rtu.accept().Close()
	}
	rtu.accept()
	s.logged(isBack)
	s.dialer.mu.Lock()
	defer s.dialer.mu.Unlock()
	if g := s.dialer.targets[0]; g.failures != 0 || g.unsteady {
		t.Errorf("%+v", g)
	}
}

// fullBacklog returns the port of a listener that accepts nothing and whose queue is full. It has
// this port at all addresses of 127.0.0.0/8.
func fullBacklog(t *testing.T) (port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = at.(*unix.SockaddrInet4).Port
	for {
		conn, err := net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", port), 200*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { conn.Close() })
	}
}

func TestADialHasATimeLimit(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", fullBacklog(t))
	s := start(t, dials("rtu-7", addr, func(c *Config) { c.ConnectTimeout = 10 * time.Millisecond }))
	s.tried(dialTimeout, 3)
	if got := s.registry.Failures()["rtu-7"].Text; got != "dialing "+addr+": i/o timeout" || s.lines(isDown) != 1 {
		t.Errorf("the last error is %q", got)
	}
}

// Many devices are down. The host tries connect_concurrent of them at a time, and a device that
// has lost its connection needn't wait for all of them.
func TestManyDevicesAreDown(t *testing.T) {
	const down, places = 5000, 20
	port := fullBacklog(t)
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) {
		for i := range down {
			c.Connect = append(c.Connect, connectTo{fmt.Sprint("down-", i), fmt.Sprintf("127.1.%d.%d:%d", i/250, 1+i%250, port)})
		}
		c.ConnectConcurrent, c.ConnectTimeout = places, 10*time.Millisecond
		c.Reconnect = transports.Reconnect{InitialInterval: 10 * time.Millisecond, MaxInterval: time.Second}
	}))
	most := 0
	looks := func() { most = max(most, s.gate.State().Kept) }
	d := rtu.accept()
	s.expect(device.Connected, "rtu-7", "")
	await.That(t, "every device was tried", func() (any, bool) {
		looks()
		n := len(s.registry.Failures())
		return n, n == down
	})
	d.Close()
	s.expect(device.Disconnected, "rtu-7", device.ClientClosed)
	before := testutil.ToFloat64(s.metrics.dials.WithLabelValues(dialTimeout))
	rtu.accept()
	s.expect(device.Connected, "rtu-7", "")
	if n := testutil.ToFloat64(s.metrics.dials.WithLabelValues(dialTimeout)) - before; n > down/2 {
		t.Errorf("the device waited for %v others", n)
	}
	if looks(); most > places+1 {
		t.Errorf("%d connections at a time", most)
	}
	if n := s.lines(isDown); n > down+1 {
		t.Errorf("%d lines for %d devices", n, down)
	}
}

// A stop waits for no dial, and no dial follows it.
func TestAStopEndsDials(t *testing.T) {
	port := fullBacklog(t)
	s := start(t, dials("rtu-7", fmt.Sprintf("127.0.0.1:%d", port), func(c *Config) { c.ConnectTimeout = 5 * time.Minute }))
	await.That(t, "a dial is under way", func() (any, bool) { n := s.gate.State().Kept; return n, n == 1 })
	s.Quiesce()
	await.That(t, "the dial has ended", func() (any, bool) { n := s.gate.State().Kept; return n, n == 0 })
	if h := s.Health()[0]; h.Err == nil || s.lines(isDown) != 0 {
		t.Errorf("%+v; the log:\n%s", h, s.log)
	}
}

func TestAKickedDialedDeviceIsDialedAgain(t *testing.T) {
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), nil))
	d := rtu.accept()
	s.expect(device.Connected, "rtu-7", "")
	if _, err := s.gatekeeper().Kick("rtu-7", "test"); err != nil {
		t.Fatal(err)
	}
	d.closed()
	s.expect(device.Disconnected, "rtu-7", device.Kicked)
	rtu.accept()
	s.expect(device.Connected, "rtu-7", "")
	if s.lines(isDown) != 0 {
		t.Errorf("the log:\n%s", s.log)
	}
}

// A device that may not connect isn't dialed.
func TestWhichDevicesAreDialed(t *testing.T) {
	rtu := newStation(t)
	known := &listed{}
	known.set("other")
	s := startWith(t, dials("rtu-7", rtu.addr(), func(c *Config) { c.Allow = allowKnown }), known)
	s.tried(refusedUnknown, 3)
	if _, err := s.gatekeeper().Ban(device.Ban{Device: "rtu-7"}); err != nil {
		t.Fatal(err)
	}
	known.set("rtu-7")
	retried := func() {
		t.Helper()
		g := s.dialer.targets[0]
		for range 3 {
			s.dialer.mu.Lock()
			was := g.timer
			s.dialer.mu.Unlock()
			await.That(t, "a further attempt", func() (any, bool) {
				s.dialer.mu.Lock()
				defer s.dialer.mu.Unlock()
				return "", g.timer != was
			})
		}
	}
	retried()
	if n := testutil.ToFloat64(s.metrics.dials.WithLabelValues(dialConnected)) + float64(s.gate.State().Kept); n != 0 {
		t.Errorf("a banned device was dialed")
	}
	if _, err := s.gatekeeper().Unban("rtu-7"); err != nil {
		t.Fatal(err)
	}
	d := rtu.accept()
	s.expect(device.Connected, "rtu-7", "")
	known.set("other")
	d.closed()
	s.expect(device.Disconnected, "rtu-7", device.Kicked)
}

// A device that is dialed also connects by itself. It has one session, and the host doesn't dial
// it while another connection has that.
func TestADialedDeviceAlsoConnects(t *testing.T) {
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) {
		c.Listen, c.Identity.By = new("127.0.0.1:0"), byFirstFrame
		if overTLS {
			c.TLS = serverTLS()
		}
	}))
	dialed := rtu.accept()
	dialed.say("rtu-7\n")
	s.expect(device.Connected, "rtu-7", "")
	own := s.dial()
	own.say("rtu-7\nhello\n")
	s.expect(device.Disconnected, "rtu-7", device.Replaced)
	s.expect(device.Connected, "rtu-7", "")
	dialed.closed()
	s.logged(errReplaced.Error())
	if got := s.frame(); got != "hello" {
		t.Errorf("got %q", got)
	}
	if n := testutil.ToFloat64(s.metrics.dials.WithLabelValues(dialConnected)); n != 1 || s.lines(isDown) != 1 {
		t.Errorf("%v dials; the log:\n%s", n, s.log)
	}
	own.Close()
	s.expect(device.Disconnected, "rtu-7", device.ClientClosed)
	again := rtu.accept()
	again.say("rtu-7\n")
	s.expect(device.Connected, "rtu-7", "")
}

// A dialed device that says that it is another one gets no session, or loses it.
func TestADialedDeviceIsAnother(t *testing.T) {
	t.Run("its first frame", func(t *testing.T) {
		rtu := newStation(t)
		s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) { c.Identity.By = byFirstFrame }))
		d := rtu.accept()
		d.say("rtu-8\n")
		d.closed()
		s.tried(refusedAuth, 1)
		s.logged(`is \"rtu-8\", and not \"rtu-7\"`)
	})
	t.Run("a frame", func(t *testing.T) {
		rtu := newStation(t)
		s := talking(t, dials("rtu-7", rtu.addr(), nil))
		d := rtu.accept()
		s.expect(device.Connected, "rtu-7", "")
		if w := s.send("rtu-7/3", "go"); w.Fate != device.Sent {
			t.Errorf("got %+v", w)
		}
		d.hear("1@3 go\r\n")
		d.say("pos rtu-7:here\r\npos rtu-8:there\r\n")
		if got := s.datum(); got.Device != "rtu-7" || got.Payload != "pos rtu-7:here" {
			t.Errorf("got %+v", got)
		}
		s.expect(device.Disconnected, "rtu-7", device.ProtocolError)
		d.closed()
	})
	t.Run("an attached device", func(t *testing.T) {
		rtu := newStation(t)
		s := attaching(t, dials("hub", rtu.addr(), nil))
		d := rtu.accept()
		s.expect(device.Connected, "hub", "")
		d.say("pos m1:north\r\n")
		s.expect(device.Connected, "m1", "")
		if w := s.send("m1", "go"); w.Fate != device.Sent {
			t.Errorf("got %+v", w)
		}
		d.hear("1=m1 go\r\n")
	})
}

// A silent device of a first frame doesn't keep a place.
func TestADialedDeviceIsSilent(t *testing.T) {
	rtu := newStation(t)
	s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) {
		c.Identity.By, c.Identity.Timeout = byFirstFrame, 50*time.Millisecond
	}))
	for range 2 {
		conn, err := rtu.Accept()
		newPeer(t, conn, err).closed()
	}
	s.logged("within identity.timeout")
}

func TestCertificatesOfDialedDevices(t *testing.T) {
	onlyTLS(t)
	other, err := certs.New(t.TempDir(), "other")
	if err != nil {
		t.Fatal(err)
	}
	foreign := issue(t, other, "rtu-7", nil)
	good := issue(t, pki.ca, "rtu-7", nil)
	for _, c := range []struct {
		name, outcome, err string
		cert               tls.Certificate
		change             func(*Config)
	}{
		{"another authority", refusedCertificate, "certificate signed by unknown authority", foreign, nil},
		{"another server name", refusedCertificate, "wanted to match gateway.example", good, func(c *Config) { c.ConnectTLS.ServerName = "gateway.example" }},
		{"another device", refusedAuth, `is "rtu-7", and not "rtu-9"`, good, func(c *Config) { c.Connect[0].Device, c.Identity.By = "rtu-9", byCertificate }},
		{"another name", refusedCertificate, `the device is "rtu-9", and the certificate's names of the kind cn are ["rtu-7"]`, good,
			func(c *Config) { c.Connect[0].Device, c.Identity.Certificate = "rtu-9", nameCN }},
		{"good", dialConnected, "", good, func(c *Config) { c.Identity.By = byCertificate }},
		{"unchecked", dialConnected, "", foreign, func(c *Config) { c.ConnectTLS.Insecure = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			rtu := newStation(t)
			rtu.cert = c.cert
			name := "rtu-7"
			s := start(t, dials(name, rtu.addr(), c.change))
			d := rtu.accept()
			s.tried(c.outcome, 1)
			if c.err == "" {
				s.expect(device.Connected, name, "")
				return
			}
			d.closed()
			name = s.config.Connect[0].Device
			if got := s.registry.Failures()[name].Text; !strings.Contains(got, c.err) {
				t.Errorf("the last error is %q", got)
			}
		})
	}
	t.Run("the host's own", func(t *testing.T) {
		rtu := newStation(t)
		pair, err := pki.ca.Issue("host-client", nil)
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, dials("rtu-7", rtu.addr(), func(c *Config) { c.ConnectTLS.Cert, c.ConnectTLS.Key = pair.Cert, pair.Key }))
		conn, err := rtu.Accept()
		p := newPeer(t, tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{rtu.cert}, ClientAuth: tls.RequireAnyClientCert}), err)
		p.say("hello\n")
		if got := s.frame(); got != "hello" {
			t.Errorf("got %q", got)
		}
		if got := p.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName; got != "host-client" {
			t.Errorf("the host shows %q", got)
		}
		s.reloadTLS(s.dialer.tls)
		s.logged(`subject="CN=host-client"`)
	})
	t.Run("a device without TLS", func(t *testing.T) {
		rtu := newStation(t)
		s := start(t, dials("rtu-7", rtu.addr(), nil))
		conn, err := rtu.Accept()
		newPeer(t, conn, err).say("hello there\r\n")
		s.tried(refusedHandshake, 1)
		s.logged("the device doesn't speak TLS")
	})
}

// The operator has said where a dialed device is. So it needs no token, whether the host knows its
// name at once or compares it with the first frame.
func TestADialedDeviceNeedsNoToken(t *testing.T) {
	rtu := newStation(t)
	s, _ := provingTalk(t, dials("lock-1", rtu.addr(), nil))
	d := rtu.accept()
	s.expect(device.Connected, "lock-1", "")
	d.say("login lock-1\r\n")
	d.hear("welcome\r\n")

	named := newStation(t)
	s, _ = proving(t, dials("lock-2", named.addr(), nil))
	named.accept().say("lock-2\r\n")
	s.expect(device.Connected, "lock-2", "")
}
