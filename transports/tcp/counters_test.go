package tcp

import (
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// live waits until the description of the only device has what ok asks for.
func (s *server) live(what string, ok func(device.Live) bool) (l device.Live) {
	s.Helper()
	await.That(s.T, what, func() (any, bool) {
		all := s.registry.Live()
		if len(all) != 1 {
			return all, false
		}
		l = all[0]
		return l, ok(l)
	})
	return l
}

func TestTrafficOfASession(t *testing.T) {
	s := start(t, func(c *Config) { c.Identity.By = byFirstFrame })
	p := s.dial()
	p.say("lock-1\r\none\r\nthree\r\nhal")
	s.frame()
	s.frame()
	if w := s.send("lock-1", "open"); w.Fate != device.Sent {
		t.Errorf("%+v", w)
	}
	l := s.live("the traffic is counted", func(l device.Live) bool { return l.FramesIn == 3 })
	if want := (device.Traffic{FramesIn: 3, BytesIn: uint64(len("lock-1onethree")), FramesOut: 1, BytesOut: uint64(len("open\r\n"))}); l.Traffic != want {
		t.Errorf("got %+v, want %+v", l.Traffic, want)
	}
	if now := time.Now(); l.LastRead.Before(l.ConnectedAt) || l.LastRead.After(now) {
		t.Errorf("read at %v, connected at %v, now %v", l.LastRead, l.ConnectedAt, now)
	}
	s.live("time passes until the next bytes", func(l device.Live) bool {
		p.say("x")
		return l.LastRead.After(l.ConnectedAt)
	})
	s.dial().say("lock-1\r\n")
	s.expect(device.Connected, "lock-1", "")
	s.expect(device.Disconnected, "lock-1", device.Replaced)
	s.live("a new session begins at 0", func(l device.Live) bool { return l.FramesIn == 1 && l.FramesOut == 0 })
	if got := s.registry.Failures(); len(got) > 0 {
		t.Errorf("without an error: %v", got)
	}
}

func TestTheLastErrorOfADevice(t *testing.T) {
	s := talking(t, func(c *Config) { c.IdleTimeout = time.Second })
	failure := func(want string) {
		t.Helper()
		await.That(t, "the error is remembered", func() (any, bool) {
			got := s.registry.Failures()["d1"].Text
			return got, got == want
		})
	}
	login := func() *peer {
		p := s.dial()
		p.say("login d1\r\n")
		p.hear("welcome\r\n")
		s.expect(device.Connected, "d1", "")
		return p
	}
	p := login()
	p.say("odd hello\r\n")
	failure("a strange line: hello")
	p.say("broken\r\n")
	s.expect(device.Disconnected, "d1", device.ProtocolError)
	failure(`stream cannot be framed: the frame "broken": the frame makes no sense`)
	login()
	s.expect(device.Disconnected, "d1", device.IdleTimeout)
	failure("nothing arrived for longer than idle_timeout")
	login().Close()
	s.expect(device.Disconnected, "d1", device.ClientClosed)
	// A device that hangs up makes no error.
	failure("nothing arrived for longer than idle_timeout")
}
