package tcp

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec/line"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/transporttest"
)

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
	s := start(t, func(c *Config) { c.IdleTimeout = time.Hour })
	silent, silentName := s.dialAs(1)
	epoch := s.expect(device.Connected, silentName, "").Epoch
	talks, talkingName := s.dialAs(2)
	s.expect(device.Connected, talkingName, "")

	await.That(t, "the host waits for what they say", func() (any, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		busy := 0
		for c := range s.conns {
			if c.session.Load() == nil || c.handling.Load() {
				busy++
			}
		}
		return fmt.Sprintf("%d of %d are busy", busy, len(s.conns)), busy == 0
	})
	// Both were silent for too long, and nobody looks at them until one of them has talked.
	func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.lastRead.Store(longAgo)
		}
		talks.say(".\n")
		if got := s.frame(); got != "." {
			t.Errorf("got %q", got)
		}
	}()
	if e := s.expect(device.Disconnected, silentName, device.IdleTimeout); e.Epoch != epoch {
		t.Errorf("got %+v", e)
	}
	silent.closed()
	s.logged(fmt.Sprintf("level=INFO msg=\"device disconnected\" device=%s epoch=%d reason=idle_timeout\n", silentName, epoch))
	if w := s.send(talkingName, "you talk"); w.Fate != device.Sent {
		t.Errorf("got %+v", w)
	}
	talks.hear("you talk\r\n")
}

// longAgo is a time on the transport's clock. It is longer ago than any idle_timeout in the tests.
const longAgo = -1000 * int64(time.Hour/time.Millisecond)

// fill sends to a device that never reads, until its queue is full or its session has ended, and
// returns what was sent. The queue holds far more than the kernel takes.
func (s *server) fill(name string) (writes []device.Write) {
	s.Helper()
	cmd := []byte(strings.Repeat("x", 4000))
	for {
		w, err := s.Devices().Enqueue(name, cmd, device.EnqueueOptions{})
		if errors.Is(err, device.ErrBusy) || errors.Is(err, device.ErrOffline) {
			return writes
		}
		if err != nil {
			s.Fatal(err)
		}
		writes = append(writes, w)
	}
}

func TestDeviceThatNeverReadsHoldsUpNobody(t *testing.T) {
	s := start(t, func(c *Config) {
		c.WriteTimeout = time.Hour
		c.QueueLimit, c.SendBuffer = queueLimit{Count: 100, Bytes: 1 << 20}, 4096
	})
	stuck, stuckName := s.dialNarrow(), "127.0.0.1"
	s.expect(device.Connected, stuckName, "")
	healthy, healthyName := s.dialAs(2)
	s.expect(device.Connected, healthyName, "")
	writes := s.fill(stuckName)
	for i := range 100 {
		want := fmt.Sprint("command ", i)
		if w := s.send(healthyName, want); w.Fate != device.Sent {
			t.Fatalf("got %+v", w)
		}
		healthy.hear(want + "\r\n")
	}
	stuck.reset()
	s.expect(device.Disconnected, stuckName, device.ConnectionLost)
	if w := writes[len(writes)-1].Wait(t.Context()); w.Fate != device.Offline {
		t.Errorf("the last frame: %+v", w)
	}
}

func TestDeviceThatNeverReadsIsDisconnected(t *testing.T) {
	s := start(t, func(c *Config) {
		c.WriteTimeout = 50 * time.Millisecond
		c.QueueLimit, c.SendBuffer = queueLimit{Count: 100, Bytes: 1 << 20}, 4096
	})
	const name = "127.0.0.1"
	s.dialNarrow()
	s.expect(device.Connected, name, "")
	writes := s.fill(name)
	s.expect(device.Disconnected, name, device.ConnectionLost)
	// The kernel took the first, and a part of one at most.
	next, fates := device.Sent, []device.Fate{}
	for i, w := range writes {
		got := w.Wait(t.Context()).Fate
		fates = append(fates, got)
		switch {
		case got == next && got != device.Unknown:
		case next == device.Sent && (got == device.Unknown || got == device.Offline):
			next = device.Offline
		default:
			t.Fatalf("of %d frames those until number %d ended as %v", len(writes), i, fates)
		}
	}
	if next == device.Sent {
		t.Errorf("all %d frames were sent", len(writes))
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

func TestConsumerThatIsBehindStopsTheDevice(t *testing.T) {
	const room, frames = 10, 100
	s := build(t, func(c *Config) {
		c.MaxFrameRate = 0
		c.Data.PerDevice, c.IdleTimeout = room, time.Hour
	})
	sub, err := s.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	s.events = s.subscribe(device.EventsTopic)
	d := s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	frame := strings.Repeat("x", 1000) + "\n"
	d.say(strings.Repeat(frame, frames))
	// Once it has the frame for which there is no room, the host doesn't read on.
	await.That(t, "the host holds what it has room for, and one frame more", func() (any, bool) {
		got := testutil.ToFloat64(s.metrics.bytesIn)
		return fmt.Sprintf("it has read %v bytes", got), got >= float64((room+1)*len(frame))
	})
	c := s.only()
	c.lastRead.Store(longAgo)
	// It isn't the device that is silent.
	await.That(t, "the host has looked at the device that was silent for long", func() (any, bool) {
		seen := c.lastRead.Load()
		return fmt.Sprintf("seen at %d, the session's end %q", seen, c.session.Load().Reason()), seen > longAgo
	})
	if got, most := testutil.ToFloat64(s.metrics.bytesIn), float64((room+1)*len(frame)+readSize); got > most {
		t.Errorf("the host has read %v bytes of a device that should be stopped after %v", got, most)
	}
	data, err := transporttest.Stock(sub).Subscribe(t.Context(), device.DataTopic)
	if err != nil {
		t.Fatal(err)
	}
	s.data = data
	for range frames {
		if got := s.frame(); got != frame[:1000] {
			t.Fatalf("got %q", got)
		}
	}
}

func TestUnread(t *testing.T) {
	s := build(t, func(c *Config) { c.Data.PerDevice = 1 })
	sub, err := s.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	s.events = s.subscribe(device.EventsTopic)
	d, name := s.dialAs(1)
	s.expect(device.Connected, name, "")
	c := s.only()
	unread := func(want bool) {
		t.Helper()
		await.That(t, fmt.Sprintf("that something is unread is %v", want), func() (any, bool) {
			got := c.session.Load() != nil && c.Unread()
			return got, got == want
		})
	}
	unread(false)
	d.say("data\n")
	d.say("for which there is no room\n")
	d.say("and more, which stays where it is\n")
	unread(true)
	if s.data, err = transporttest.Stock(sub).Subscribe(t.Context(), device.DataTopic); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.frame()
	}
	unread(false)
}

func TestParallelDials(t *testing.T) {
	s := start(t, nil)
	n := 1000
	if overTLS {
		n = 200
	}
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
	await.That(t, "the connection is forgotten", func() (any, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Sprintf("%d connections", len(s.conns)), len(s.conns) == 0
	})
	s.dialAs(2)
	s.expect(device.Connected, "127.1.0.2", "")
}

func TestMaxUnidentified(t *testing.T) {
	s := start(t, func(c *Config) { c.Identity.By, c.MaxUnidentified = byFirstFrame, 1 })
	silent := s.dial()
	d := s.dial()
	silent.closed()
	d.say("door\n")
	s.expect(device.Connected, "door", "")
	other := s.dial()
	other.say("window\n")
	s.expect(device.Connected, "window", "")
	await.That(t, "the silent connection is counted", func() (any, bool) {
		n := s.refused(refusedDisplaced)
		return n, n == 1
	})
}

// Silent connections from one address neither keep devices out nor end them, whatever limit they
// reach; a device of the same address gets in, too.
func TestSilentConnectionsKeepNobodyOut(t *testing.T) {
	const places = 20
	for name, change := range map[string]func(*Config){
		"max_connections":  func(c *Config) { c.MaxConnections = places },
		"max_unidentified": func(c *Config) { c.MaxUnidentified = places },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *Config) {
				c.Identity.By, c.Identity.Timeout = byFirstFrame, time.Hour
				change(c)
			})
			before := s.dial()
			before.say("before\n")
			s.expect(device.Connected, "before", "")
			slow, _ := s.dialAs(1)
			for range 3 * places {
				s.dial()
			}
			slow.say("slow\n")
			s.expect(device.Connected, "slow", "")
			for i, attacked := range []func() *peer{
				func() *peer { p, _ := s.dialAs(2); return p },
				s.dial,
			} {
				p := attacked()
				p.say(fmt.Sprintf("device-%d\n", i))
				s.expect(device.Connected, fmt.Sprintf("device-%d", i), "")
			}
			if w := s.send("before", "still there"); w.Fate != device.Sent {
				t.Errorf("got %+v", w)
			}
			before.hear("still there\r\n")
			if h := s.Health()[0]; h.Err != nil || !strings.Contains(h.Note, "under pressure") {
				t.Errorf("got %+v", h)
			}
		})
	}
}

// Devices behind one address are all taken while there is room.
func TestManyDevicesBehindOneAddress(t *testing.T) {
	const devices = 200
	s := start(t, func(c *Config) { c.Identity.By, c.MaxConnections = byFirstFrame, devices })
	var peers []*peer
	for range devices {
		peers = append(peers, s.dial())
	}
	for i, p := range peers {
		p.say(fmt.Sprintf("device-%d\n", i))
		s.expect(device.Connected, fmt.Sprintf("device-%d", i), "")
	}
	if state := s.gate.State(); state != (listen.State{Kept: devices}) {
		t.Errorf("got %+v", state)
	}
	// Another one is refused, as all are known, and readiness says so until there is a place.
	s.dial().closed()
	if h := s.Health()[0]; h.Err == nil || !strings.Contains(h.Err.Error(), "all 200 that max_connections allows are in use; further ones are refused") {
		t.Errorf("got %+v", h)
	}
	peers[0].Close()
	s.expect(device.Disconnected, "device-0", device.ClientClosed)
	await.That(t, "there is a place", func() (any, bool) {
		h := s.Health()[0]
		return h, h.Err == nil
	})
}

// A name too many is refused before it makes an event; those that are known aren't held up.
func TestNewNames(t *testing.T) {
	known := &listed{}
	known.set("listed")
	s := startWith(t, func(c *Config) {
		c.Identity.By, c.NewNames = byFirstFrame, newNames{Rate: 1, Burst: 1, AtStart: 1}
	}, known)
	var first *peer
	for _, name := range []string{"a", "b"} {
		first = s.dial()
		first.say(name + "\n")
		s.expect(device.Connected, name, "")
	}
	// One a second may come; they take less than that each.
	var strangers []*peer
	for range 50 {
		strangers = append(strangers, s.dial())
	}
	for i, d := range strangers {
		d.say(fmt.Sprintf("invented-%d\n", i))
	}
	await.That(t, "refusals are counted", func() (any, bool) {
		n := s.refused(refusedName)
		return n, n >= 1
	})
	s.logged(`too many new names of devices, such as \"invented-`)
	d := s.dial()
	d.say("listed\n")
	s.connected("listed")
	again := s.dial()
	again.say("b\n")
	first.closed()
	s.connected("b")
}

// connected waits until the device has connected. Other devices may have connected before it.
func (s *server) connected(name string) {
	s.Helper()
	for {
		if e := s.event(); e.Device == name && e.Type == device.Connected {
			return
		}
	}
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
	dialled := make(chan *peer, 1)
	go func() { dialled <- s.dial() }() // with the last one
	await.That(t, "accepting fails", func() (any, bool) {
		h := s.Health()[0]
		return h, h.Err != nil
	})
	give()
	d := await.Receive(t, "the connection", dialled)
	s.expect(device.Connected, "127.0.0.1", "")
	if n := strings.Count(s.log.String(), "accepting connections doesn't work"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, s.log)
	}
	await.That(t, "accepting works", func() (any, bool) {
		h := s.Health()[0]
		return h, h.Err == nil
	})
	s.send("127.0.0.1", "hello")
	d.hear("hello\r\n")
}

func TestSocketOptionsAreInherited(t *testing.T) {
	s := start(t, func(c *Config) { c.SendBuffer, c.ReceiveBuffer, c.UserTimeout = 8192, 4096, 7*time.Second })
	s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		err := c.raw.Control(func(fd uintptr) {
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || n != 2*8192 {
				t.Errorf("SO_SNDBUF: %d, %v", n, err)
			}
			if n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); err != nil || n != 2*4096 {
				t.Errorf("SO_RCVBUF: %d, %v", n, err)
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
