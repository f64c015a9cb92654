package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
			p := newPeer(t, conn, err)
			p.say(fmt.Sprintf("device-%d\n%s\n", puts.Add(1), strings.Join(payloads, "\n")))
			for range payloads {
				select {
				case <-tap:
				case <-time.After(patience):
					t.Fatal("the frames didn't arrive")
				}
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
		"10.0.0.7": "10.0.0.7", "::ffff:10.0.0.7": "10.0.0.7", "FE80::1%eth0": "fe80::1", "2001:DB8:0:0::1": "2001:db8::1",
	} {
		if got, err := canonicalAddress(in); got != want || err != nil {
			t.Errorf("canonicalAddress(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "door", "10.0.0.7:80", "10.0.0.07"} {
		if got, err := canonicalAddress(in); !errors.Is(err, device.ErrDevice) {
			t.Errorf("canonicalAddress(%q) = %q, %v", in, got, err)
		}
	}
}

func TestLostConnection(t *testing.T) {
	s := start(t, nil)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	if err := d.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	d.Close() // with a reset
	s.expect(device.Disconnected, "127.0.0.1", device.ConnectionLost)
}

func TestTakeover(t *testing.T) {
	s := start(t, nil)
	old := s.dial()
	first := s.expect(device.Connected, "127.0.0.1", "")
	newer := s.dial()
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

func TestSeveralDevicesBehindOneAddress(t *testing.T) {
	s := start(t, nil)
	var current *peer
	for range 4 {
		current = s.dial()
		for s.event().Type != device.Connected {
		}
	}
	waits := s.dial()
	eventually(t, "the advice is logged", func() bool {
		return strings.Contains(s.log.String(), "several devices behind one address: use first-frame")
	})
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
	var last *peer
	for range 4 {
		last = s.dial()
		for s.event().Type != device.Connected {
		}
	}
	leaves := s.dial()
	eventually(t, "it waits", func() bool { return strings.Contains(s.log.String(), "use first-frame") })
	leaves.Close()
	stays := s.dial()
	// The connection that left is the first whose turn it is.
	eventually(t, "both wait", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.unidentified == 2
	})
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
	s := start(t, func(c *Config) {
		c.Framing = &line.Config{Max: 32, Terminator: "crlf"}
		c.Identity.By, c.Identity.Pattern, c.Identity.Timeout = byFirstFrame, `^HELLO (\S+)$`, 50*time.Millisecond
	})
	d := s.dial()
	d.say("HELLO door\n")
	s.expect(device.Connected, "door", "")
	for name, first := range map[string]string{
		"says something else":  "GET / HTTP/1.1\r\n",
		"never ends its line":  strings.Repeat("x", 100),
		"sends junk":           "\x16\x03\x01\x00\xff\x00\n",
		"never says anything":  "",
		"never finishes hello": "HELLO do",
	} {
		t.Log(name)
		p := s.dial()
		p.say(first)
		p.closed()
	}
	if got := s.send("door", "still there"); got.Fate != device.Sent {
		t.Errorf("got %+v", got)
	}
	d.hear("still there\r\n")
	d.Close()
	s.expect(device.Disconnected, "door", device.ClientClosed)
	if !strings.Contains(s.log.String(), "within identity.timeout") || !strings.Contains(s.log.String(), "doesn't match identity.pattern") {
		t.Errorf("the log doesn't say why:\n%s", s.log)
	}
}

func TestEndlessLine(t *testing.T) {
	s := start(t, func(c *Config) { c.Framing = &line.Config{Max: 10_000, Terminator: "crlf"} })
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	long := strings.Repeat("x", 10_000)
	d.say(long + "\n")
	if got := s.frame(); got != long {
		t.Fatalf("a line of the longest length came as %d bytes", len(got))
	}
	d.say(long + "x")
	s.expect(device.Disconnected, "127.0.0.1", device.ProtocolError)
	d.closed()
}

func TestIdleDevices(t *testing.T) {
	s := start(t, func(c *Config) { c.IdleTimeout = 100 * time.Millisecond })
	silent, _ := s.dialAs(1)
	s.expect(device.Connected, "127.1.0.1", "")
	talks, _ := s.dialAs(2)
	s.expect(device.Connected, "127.1.0.2", "")
	ended := make(chan device.Event)
	go func() { ended <- s.event() }()
	for {
		select {
		case e := <-ended:
			if e.Device != "127.1.0.1" || e.Reason != device.IdleTimeout {
				t.Fatalf("got %+v", e)
			}
			silent.closed()
			return
		default:
			talks.say(".\n")
			if got := s.frame(); got != "." {
				t.Fatalf("got %q", got)
			}
		}
	}
}

func TestDeviceThatNeverReadsHoldsUpNobody(t *testing.T) {
	s := start(t, func(c *Config) {
		c.WriteTimeout = 500 * time.Millisecond
		c.QueueLimit = queueLimit{Count: 100, Bytes: 1 << 20}
	})
	_, stuckName := s.dialAs(1)
	s.expect(device.Connected, stuckName, "")
	healthy, healthyName := s.dialAs(2)
	s.expect(device.Connected, healthyName, "")
	cmd := []byte(strings.Repeat("x", 4000))
	var last device.Write
	for {
		w, err := s.Devices().Enqueue(stuckName, cmd, device.EnqueueOptions{})
		if errors.Is(err, device.ErrBusy) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = w
	}
	for i := range 100 {
		want := fmt.Sprint("command ", i)
		if w := s.send(healthyName, want); w.Fate != device.Sent {
			t.Fatalf("got %+v", w)
		}
		healthy.hear(want + "\r\n")
	}
	s.expect(device.Disconnected, stuckName, device.ConnectionLost)
	if w := last.Wait(t.Context()); w.Fate != device.Offline {
		t.Errorf("the last frame: %+v", w)
	}
}

func TestSlowReaderGetsEverything(t *testing.T) {
	s := start(t, func(c *Config) { c.SendBuffer = 4096 })
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	var want strings.Builder
	var writes []device.Write
	for i := range 900 {
		cmd := fmt.Sprintf("%d:%s", i, strings.Repeat("x", 200))
		want.WriteString(cmd + "\r\n")
		w, err := s.Devices().Enqueue("127.0.0.1", []byte(cmd), device.EnqueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		writes = append(writes, w)
	}
	d.hear(want.String())
	for i, w := range writes {
		if got := w.Wait(t.Context()); got.Fate != device.Sent {
			t.Fatalf("command %d: %+v", i, got)
		}
	}
}

func TestFlood(t *testing.T) {
	t.Run("throttle", func(t *testing.T) {
		s := start(t, func(c *Config) { c.MaxFrameRate = 5 })
		d := s.dial()
		begin := time.Now()
		d.say(strings.Repeat("x\n", 11))
		for range 11 {
			s.frame()
		}
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("11 frames at 5 a second took %v", took)
		}
	})
	t.Run("close", func(t *testing.T) {
		s := start(t, func(c *Config) { c.MaxFrameRate, c.Flood = 5, "close" })
		d := s.dial()
		s.expect(device.Connected, "127.0.0.1", "")
		d.say(strings.Repeat("x\n", 11))
		s.expect(device.Disconnected, "127.0.0.1", device.ProtocolError)
	})
}

func TestConsumerThatIsBehindStopsTheDevice(t *testing.T) {
	s := build(t, func(c *Config) {
		c.MaxFrameRate = 0
		c.Data.PerDevice, c.IdleTimeout = 10, 50*time.Millisecond
	})
	sub, err := s.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	d := s.dial()
	frame := strings.Repeat("x", 1000) + "\n"
	if err := d.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for {
		n, err := d.Write([]byte(frame))
		sent += n
		if err != nil {
			break // its own sending stalls, for far longer than the idle timeout
		}
	}
	data, err := sub.Subscribe(t.Context(), device.DataTopic)
	if err != nil {
		t.Fatal(err)
	}
	s.data = data
	for range sent / len(frame) {
		if got := s.frame(); got != frame[:1000] {
			t.Fatalf("got %q", got)
		}
	}
}

func TestParallelDials(t *testing.T) {
	s := start(t, nil)
	const n = 2000
	var wg sync.WaitGroup
	slots := make(chan struct{}, 500)
	conns := make(chan net.Conn, n)
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			conn, err := dialFrom(t.Context(), i, s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			conns <- conn
		})
	}
	for range n {
		if e := s.event(); e.Type != device.Connected {
			t.Fatalf("got %+v", e)
		}
	}
	wg.Wait()
	close(conns)
	for conn := range conns {
		conn.Close()
	}
}

func TestMaxConnections(t *testing.T) {
	s := start(t, func(c *Config) { c.MaxConnections = 1 })
	d, _ := s.dialAs(1)
	s.expect(device.Connected, "127.1.0.1", "")
	refused, _ := s.dialAs(2)
	refused.closed()
	d.Close()
	s.expect(device.Disconnected, "127.1.0.1", device.ClientClosed)
	eventually(t, "the connection is forgotten", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conns) == 0
	})
	s.dialAs(2)
	s.expect(device.Connected, "127.1.0.2", "")
}

func TestMaxUnidentified(t *testing.T) {
	s := start(t, func(c *Config) { c.Identity.By, c.MaxUnidentified = byFirstFrame, 1 })
	d := s.dial()
	s.dial().closed()
	d.say("door\n")
	s.expect(device.Connected, "door", "")
	other := s.dial()
	other.say("window\n")
	s.expect(device.Connected, "window", "")
}

// TestWithoutFileDescriptors takes all descriptors that the process may have.
func TestWithoutFileDescriptors(t *testing.T) {
	s := start(t, nil)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var taken []int
	give := func() {
		for _, fd := range taken {
			_ = unix.Close(fd)
		}
		taken = nil
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}
	defer func() { give() }()
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	_ = unix.Close(taken[len(taken)-1])
	taken = taken[:len(taken)-1]
	d := s.dial() // with the last one
	eventually(t, "accepting fails", func() bool { return s.Health()[0].Err != nil })
	give()
	s.expect(device.Connected, "127.0.0.1", "")
	if n := strings.Count(s.log.String(), "accepting connections; trying on"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, s.log)
	}
	eventually(t, "accepting works", func() bool { return s.Health()[0].Err == nil })
	s.send("127.0.0.1", "hello")
	d.hear("hello\r\n")
}

func TestSocketOptionsAreInherited(t *testing.T) {
	s := start(t, func(c *Config) { c.SendBuffer, c.UserTimeout = 8192, 7*time.Second })
	s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		err := c.raw.Control(func(fd uintptr) {
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || n != 2*8192 {
				t.Errorf("SO_SNDBUF: %d, %v", n, err)
			}
			if n, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || n != 7000 {
				t.Errorf("TCP_USER_TIMEOUT: %d, %v", n, err)
			}
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE); err != nil || n != 1 {
				t.Errorf("SO_KEEPALIVE: %d, %v", n, err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	s := start(t, nil)
	c := testConfig()
	c.Listen = s.addr
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
	if conn, err := net.Dial("tcp", s.addr); err == nil {
		conn.Close()
		t.Error("a connection was accepted after Quiesce")
	}
	if s.Health()[0].Err == nil {
		t.Error("the listener is healthy after Quiesce")
	}
	s.send("127.0.0.1", "last words")
	s.CloseSessions(t.Context())
	d.hear("last words\r\n")
	d.closed()
	s.expect(device.Disconnected, "127.0.0.1", device.ServerShutdown)
	var stopped device.Event
	s.receive(s.events, &stopped)
	if stopped.Reason != device.HostStopped || stopped.Online {
		t.Errorf("got %+v", stopped)
	}
	if _, ok := <-s.events; ok {
		t.Error("events go on after the host stopped")
	}
	if _, ok := <-s.data; ok {
		t.Error("data goes on after the host stopped")
	}
}

func TestNothingIsPublished(t *testing.T) {
	s := build(t, nil)
	if _, err := s.Publisher(transports.Producer{Pipeline: "p"}); err == nil || !strings.Contains(err.Error(), "deliver handler") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Tap(t.Context(), "date"); err == nil {
		t.Error("tapped a topic that isn't there")
	}
}
