package tcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec/line"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/transporttest"
)

func TestConformance(t *testing.T) {
	var puts atomic.Int64
	transporttest.Run(t, transporttest.Harness{
		Config: func(*testing.T) transports.Config {
			c := testConfig()
			c.Identity.By = byFirstFrame
			c.Data.Window = 20
			return c
		},
		Topic: device.DataTopic,
		Put: func(t *testing.T, tr transports.Transport, payloads ...string) {
			t.Helper()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tap, err := tr.(transports.Tapper).Tap(ctx, device.DataTopic)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := net.Dial("tcp", tr.(*transport).listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			p := newPeer(t, secure(conn), nil)
			p.say(fmt.Sprintf("device-%d\n%s\n", puts.Add(1), strings.Join(payloads, "\n")))
			for range payloads {
				await.Receive(t, "a frame at the tap", tap)
			}
		},
		Read:       payload,
		Redelivers: true,
		Returns:    true,
	})
}

func TestDeviceByAddress(t *testing.T) {
	s := start(t, nil)
	d := s.dial()
	connected := s.expect(device.Connected, "127.0.0.1", "")
	if connected.RemoteAddr != d.LocalAddr().String() || connected.Host != "host-1" || connected.Seq != 1 {
		t.Errorf("got %+v", connected)
	}
	if w := s.send("::ffff:127.0.0.1", "open"); w.Fate != device.Sent || w.Epoch != connected.Epoch {
		t.Errorf("got %+v", w)
	}
	d.hear("open\r\n")
	d.say("done\r\nag")
	if got := s.frame(); got != "done" {
		t.Errorf("got %q", got)
	}
	d.say("ain\nand again\n")
	for _, want := range []string{"again", "and again"} {
		if got := s.frame(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	d.Close()
	if e := s.expect(device.Disconnected, "127.0.0.1", device.ClientClosed); e.Epoch != connected.Epoch || e.Seq != 5 {
		t.Errorf("got %+v", e)
	}
	if _, err := s.Devices().Enqueue("127.0.0.1", []byte("x"), device.EnqueueOptions{}); !errors.Is(err, device.ErrOffline) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := s.Devices().Enqueue("door", []byte("x"), device.EnqueueOptions{}); !errors.Is(err, device.ErrDevice) {
		t.Errorf("with a name that is no address: %v", err)
	}
}

func TestCanonicalAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.7": "10.0.0.7", "::ffff:10.0.0.7": "10.0.0.7", "2001:DB8:0:0::1": "2001:db8::1",
		"fe80::1": "fe80::1", "FE80::1%eth0": "fe80::1%eth0", "fe80:0::1%Eth1.7": "fe80::1%Eth1.7", "ff02::1%2": "ff02::1%2",
	} {
		if got, err := canonicalAddress(in); got != want || err != nil {
			t.Errorf("canonicalAddress(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "door", "10.0.0.7:80", "10.0.0.07", "10.0.0.7%eth0", "fe80::1%", "fe80::1%\x1b[2J", "fe80::1%eth0 "} {
		if got, err := canonicalAddress(in); !errors.Is(err, device.ErrDevice) {
			t.Errorf("canonicalAddress(%q) = %q, %v", in, got, err)
		}
	}
}

func TestTheZoneIsAPartOfADevicesName(t *testing.T) {
	for peer, want := range map[string]string{
		"[fe80::1%eth0]:9": "fe80::1%eth0", "[fe80::1%eth1]:9": "fe80::1%eth1", "[2001:db8::1]:9": "2001:db8::1",
		"10.0.0.7:9": "10.0.0.7", "[::ffff:10.0.0.7]:9": "10.0.0.7",
	} {
		got := peerName(netip.MustParseAddrPort(peer))
		canonical, err := canonicalAddress(got)
		if got != want || canonical != got || err != nil {
			t.Errorf("the device at %s is %q, in canonical form %q, %v; want %q", peer, got, canonical, err, want)
		}
	}
}

// The connection goes from a link-local address of this machine to itself.
func TestADeviceAtALinkLocalAddress(t *testing.T) {
	local := linkLocal(t)
	s := start(t, func(c *Config) { c.Listen = new("[::]:0") })
	conn, err := net.DialTCP("tcp6", local, &net.TCPAddr{IP: local.IP, Zone: local.Zone, Port: s.listener.Addr().(*net.TCPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	d := newPeer(t, secure(conn), nil)
	name := local.AddrPort().Addr().String()
	e := s.expect(device.Connected, name, "")
	if want := d.LocalAddr().String(); e.RemoteAddr != want || !strings.Contains(want, "%"+local.Zone) {
		t.Errorf("remote_addr is %q, want %q", e.RemoteAddr, want)
	}
	if w := s.send(name, "open"); w.Fate != device.Sent {
		t.Errorf("sending to %s: %+v", name, w)
	}
	without := local.AddrPort().Addr().WithZone("").String()
	if _, err := s.Devices().Enqueue(without, []byte("x"), device.EnqueueOptions{}); !errors.Is(err, device.ErrOffline) {
		t.Errorf("sending to %s: %v", without, err)
	}
}

// linkLocal returns a link-local address of this machine, with its zone and no port.
func linkLocal(t *testing.T) *net.TCPAddr {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				return &net.TCPAddr{IP: n.IP, Zone: i.Name}
			}
		}
	}
	t.Skip("this machine has no link-local address")
	return nil
}

func TestLostConnection(t *testing.T) {
	s := start(t, nil)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	d.reset()
	s.expect(device.Disconnected, "127.0.0.1", device.ConnectionLost)
}

func TestTakeover(t *testing.T) {
	s := start(t, nil)
	old := s.dial()
	first := s.expect(device.Connected, "127.0.0.1", "")
	newer := s.dial()
	newer.say("hello\r\n")
	if e := s.expect(device.Disconnected, "127.0.0.1", device.Replaced); e.Epoch != first.Epoch {
		t.Errorf("got %+v", e)
	}
	if e := s.expect(device.Connected, "127.0.0.1", ""); e.Epoch <= first.Epoch {
		t.Errorf("got %+v", e)
	}
	old.closed()
	s.send("127.0.0.1", "open")
	newer.hear("open\r\n")
}

// A balancer's probe from the address of a live device doesn't cut the device off. A connection
// that says something does.
func TestAProbeReplacesNobody(t *testing.T) {
	s := start(t, nil)
	live := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	for probes := range 2 {
		s.dial().Close()
		await.That(t, "the probe is refused", func() (any, bool) { n := s.refused(refusedTurn); return n, n == float64(probes+1) })
	}
	silent := s.dial()
	s.strangers(1)
	s.send("127.0.0.1", "open")
	live.hear("open\r\n")
	silent.say("hello\r\n")
	s.expect(device.Disconnected, "127.0.0.1", device.Replaced)
	s.expect(device.Connected, "127.0.0.1", "")
	if got := s.frame(); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// A probe makes the kernel of a live device respond, and the device notices nothing.
func TestProbe(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the silence of a connection is known only on Linux")
	}
	s := start(t, nil)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	c := s.only()
	silence := func(what string, so func(time.Duration) bool) {
		await.That(t, what, func() (any, bool) { got := c.SilentFor(); return got, so(got) })
	}
	const long = 1500 * time.Millisecond
	silence("the device is silent", func(got time.Duration) bool { return got > long })
	c.Probe()
	silence("the device responds", func(got time.Duration) bool { return got > 0 && got < long })
	s.send("127.0.0.1", "open")
	d.hear("open\r\n")
}

// flap dials from one address until the newest connection has to wait.
func (s *server) flap() (current, waits *peer) {
	s.Helper()
	for range 4 {
		current = s.dial()
		current.say("hello\r\n")
		for s.event().Type != device.Connected {
		}
	}
	waits = s.dial()
	waits.say("hello\r\n")
	s.logged("several devices behind one address: use first-frame")
	return current, waits
}

func TestSeveralDevicesBehindOneAddress(t *testing.T) {
	s := start(t, nil)
	current, waits := s.flap()
	s.send("127.0.0.1", "still you")
	current.hear("still you\r\n")
	current.Close()
	s.expect(device.Disconnected, "127.0.0.1", device.ClientClosed)
	s.expect(device.Connected, "127.0.0.1", "")
	s.send("127.0.0.1", "now you")
	waits.hear("now you\r\n")
}

func TestNewcomerThatLeftDoesNotReplace(t *testing.T) {
	s := start(t, nil)
	last, leaves := s.flap()
	leaves.Close()
	stays := s.dial()
	stays.say("hello\r\n")
	// The newer connection displaces the one that left.
	await.That(t, "a connection is displaced", func() (any, bool) { n := s.refused(refusedTurn); return n, n == 1 })
	last.Close()
	s.expect(device.Disconnected, "127.0.0.1", device.ClientClosed)
	s.expect(device.Connected, "127.0.0.1", "")
	s.send("127.0.0.1", "you")
	stays.hear("you\r\n")
}

func TestDeviceByFirstFrame(t *testing.T) {
	s := start(t, func(c *Config) { c.Identity.By, c.Identity.Pattern = byFirstFrame, `^HELLO (\S+)$` })
	a, b := s.dial(), s.dial()
	a.say("HELLO door-1\r\nfirst\r\nsec")
	s.expect(device.Connected, "door-1", "")
	b.say("HEL")
	b.say("LO door-2\r\n")
	s.expect(device.Connected, "door-2", "")
	a.say("ond\r\n")
	for _, want := range []string{"first", "second"} {
		if got := s.frame(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	s.send("door-2", "two")
	b.hear("two\r\n")
	s.send("door-1", "one")
	a.hear("one\r\n")
}

func TestStrangersEvictNobody(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration
		first   [][2]string // what they say
		why     string      // the first one is refused
	}{
		{"by what they say", time.Hour, [][2]string{
			{"something else", "GET / HTTP/1.1\r\n"},
			{"a line for ever", strings.Repeat("x", 100)},
			{"what is no line", "\x16\x03\x01\x00\xff\x00\n"},
			{"hello to somebody", "HELLO you there\n"},
		}, "doesn't match identity.pattern"},
		{"by what they don't say", 50 * time.Millisecond, [][2]string{{"nothing", ""}, {"half a hello", "HELLO do"}}, "within identity.timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, func(config *Config) {
				config.Framing = &line.Config{Max: 32, Terminator: "crlf"}
				config.Identity.By, config.Identity.Pattern, config.Identity.Timeout = byFirstFrame, `^HELLO (\S+)$`, c.timeout
			})
			d := s.dialInTime("HELLO door\n", "door")
			s.expect(device.Connected, "door", "")
			for _, first := range c.first {
				t.Logf("a stranger says %s", first[0])
				p := s.dial()
				_, _ = io.WriteString(p, first[1]) // it may be refused before that
				p.closed()
				s.logged("refusing a connection") // of one address, only the first one is logged
			}
			if got := s.send("door", "still there"); got.Fate != device.Sent {
				t.Errorf("got %+v", got)
			}
			d.hear("still there\r\n")
			d.Close()
			s.expect(device.Disconnected, "door", device.ClientClosed)
			s.logged(c.why)
		})
	}
}

// dialInTime dials until the host has heard who it is within identity.timeout.
func (s *server) dialInTime(hello, name string) *peer {
	s.Helper()
	for {
		before, d := s.refused(refusedAuth), s.dial()
		_, _ = io.WriteString(d, hello) // the time may be over
		known := false
		await.That(s.T, "the first frame of "+name+" is judged", func() (any, bool) {
			known = s.Devices().Epoch(name) != 0
			return fmt.Sprintf("%v were refused", s.refused(refusedAuth)), known || s.refused(refusedAuth) > before
		})
		if known {
			return d
		}
		d.Close()
	}
}

func TestAddressInUse(t *testing.T) {
	s := start(t, nil)
	c := testConfig()
	c.Listen = &s.addr
	tr, err := c.New(env(&logBuffer{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "listening on "+s.addr) {
		t.Errorf("got %v", err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestShutdown(t *testing.T) {
	s := start(t, nil)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	s.Quiesce()
	// Dialling doesn't show it: another process may have got the port by now.
	if conn, err := s.listener.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Quiesce the listener accepts %v, %v", conn, err)
	}
	if s.Health()[0].Err == nil {
		t.Error("the listener is healthy after Quiesce")
	}
	s.send("127.0.0.1", "last words")
	ended := make(chan struct{})
	go func() { defer close(ended); s.CloseSessions(t.Context()) }()
	d.hear("last words\r\n")
	d.closed()
	d.Close() // else the host would linger
	await.Closed(t, "the sessions are closed", ended)
	s.expect(device.Disconnected, "127.0.0.1", device.ServerShutdown)
	var stopped device.Event
	s.receive(s.events, &stopped)
	if stopped.Reason != device.HostStopped || stopped.Online {
		t.Errorf("got %+v", stopped)
	}
	await.Closed(t, "the events end with the host", s.events)
	await.Closed(t, "the data ends with the host", s.data)
}

func TestNothingIsPublished(t *testing.T) {
	s := build(t, nil)
	if _, err := s.Publisher(transports.Producer{Pipeline: "p"}); err == nil || !strings.Contains(err.Error(), "handler deliver") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Tap(t.Context(), "date"); err == nil {
		t.Error("tapped a topic that isn't there")
	}
}
