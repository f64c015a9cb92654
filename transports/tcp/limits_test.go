package tcp

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec/line"
	"github.com/pentrough/pentrough/transports/device"
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
			eventually(t, "the log says so", func() bool {
				line := regexp.MustCompile(`level=INFO msg="device disconnected" device=127\.1\.0\.1 epoch=\d+ reason=idle_timeout\n`)
				return line.MatchString(s.log.String())
			})
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

func TestUnread(t *testing.T) {
	s := build(t, func(c *Config) { c.Data.PerDevice = 1 })
	sub, err := s.Subscriber(transports.Consumer{Pipeline: "p"})
	if err != nil {
		t.Fatal(err)
	}
	s.events = s.subscribe(device.EventsTopic)
	d, name := s.dialAs(1)
	s.expect(device.Connected, name, "")
	unread := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			return c.session.Load() != nil && c.Unread()
		}
		return false
	}
	eventually(t, "nothing is there", func() bool { return !unread() })
	d.say("data\n")
	d.say("for which there is no room\n")
	d.say("and more, which stays where it is\n")
	eventually(t, "it isn't read", unread)
	if s.data, err = sub.Subscribe(t.Context(), device.DataTopic); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.frame()
	}
	eventually(t, "all is read", func() bool { return !unread() })
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
