package tcp

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// The device receives what the kernel took for it, although the host never reads all bytes of the
// device. A plain close would reset the connection and lose the bytes.
func TestLastCommandsArrive(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(s *server)
		reason device.Reason
	}{
		{"at a shutdown", func(s *server) { s.CloseSessions(s.Context()) }, device.ServerShutdown},
		{"of a session that is replaced", func(s *server) { s.dial().say("hello\n") }, device.Replaced},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := build(t, func(c *Config) { c.Data.PerDevice, c.MaxFrameRate = 10, 0 })
			s.events = s.subscribe(device.EventsTopic)
			if _, err := s.Subscriber(transports.Consumer{Pipeline: "takes nothing"}); err != nil {
				t.Fatal(err)
			}
			d := s.dialNarrow()
			s.expect(device.Connected, "127.0.0.1", "")
			d.say(strings.Repeat("never read\n", 2000))
			var want strings.Builder
			for i := range 10 {
				cmd := fmt.Sprintf("%d:%s", i, strings.Repeat("x", 1000))
				want.WriteString(cmd + "\r\n")
				if w := s.send("127.0.0.1", cmd); w.Fate != device.Sent {
					t.Fatalf("command %d: %+v", i, w)
				}
			}
			ended := make(chan struct{})
			go func() { defer close(ended); c.end(s) }()
			s.expect(device.Disconnected, "127.0.0.1", c.reason)
			got := make([]byte, want.Len())
			if n, err := io.ReadFull(d.r, got); err != nil || string(got) != want.String() {
				t.Fatalf("%d of %d bytes came, %v", n, len(got), err)
			}
			d.closed()
			d.Close()
			<-ended
		})
	}
}

// A device that never closes its side holds up a stop for no longer than lingerTime.
func TestLingerIsBounded(t *testing.T) {
	s := start(t, nil)
	s.dial()
	s.expect(device.Connected, "127.0.0.1", "")
	s.CloseSessions(t.Context())
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) != 0 {
		t.Errorf("%d connections are open", len(s.conns))
	}
}

// dialNarrow dials with a small receive buffer. Most of what is sent then waits in the host's
// kernel.
func (s *server) dialNarrow() *peer {
	s.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 2048) }); failed != nil {
			return failed
		}
		return err
	}}
	conn, err := d.DialContext(s.Context(), "tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	return newPeer(s.T, secure(conn), nil)
}
