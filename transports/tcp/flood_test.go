package tcp

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/transports/device"
)

func TestFlood(t *testing.T) {
	t.Run("throttle", func(t *testing.T) {
		t.Parallel()
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
	t.Run("throttle bytes", func(t *testing.T) {
		t.Parallel()
		s := start(t, func(c *Config) { c.MaxFrameRate, c.MaxByteRate = 0, 1000 })
		d := s.dial()
		begin := time.Now()
		d.say(strings.Repeat("x", 2500) + "\nend\n")
		s.frame()
		if got := s.frame(); got != "end" {
			t.Errorf("got %q", got)
		}
		if took := time.Since(begin); took < 2500*time.Millisecond {
			t.Errorf("2500 bytes at 1000 a second took %v", took)
		}
	})
	t.Run("close by bytes", func(t *testing.T) {
		t.Parallel()
		s := start(t, func(c *Config) { c.MaxByteRate, c.Flood = 1000, "close" })
		d := s.dial()
		s.expect(device.Connected, "127.0.0.1", "")
		d.say(strings.Repeat("x", 3000) + "\n")
		s.expect(device.Disconnected, "127.0.0.1", device.ProtocolError)
		s.logged("or more bytes than max_byte_rate")
	})
	t.Run("close", func(t *testing.T) {
		t.Parallel()
		s := start(t, func(c *Config) { c.MaxFrameRate, c.Flood = 5, "close" })
		d := s.dial()
		s.expect(device.Connected, "127.0.0.1", "")
		d.say(strings.Repeat("x\n", 1000)) // more than the rate of several seconds
		s.expect(device.Disconnected, "127.0.0.1", device.ProtocolError)
	})
	t.Run("throttle for too long", func(t *testing.T) {
		t.Parallel()
		s := start(t, func(c *Config) { c.MaxFrameRate, c.FloodTimeout = 5, 1500*time.Millisecond })
		d := s.dial()
		s.expect(device.Connected, "127.0.0.1", "")
		d.say(strings.Repeat("x\n", 1000))
		s.expect(device.Disconnected, "127.0.0.1", device.ProtocolError)
		s.logged("for longer than flood_timeout, 1.5s")
	})
	t.Run("throttle with a pause", func(t *testing.T) {
		tr := &transport{config: Config{MaxFrameRate: 2, Flood: throttle, FloodTimeout: time.Minute}}
		c := &conn{transport: tr, flood: flood{frames: 1, since: time.Now().Add(-time.Hour), throttledSince: time.Now().Add(-time.Hour)}}
		if err := c.checkRate(nil, 1, 2); err != nil || !c.flood.throttledSince.IsZero() {
			t.Errorf("%v, over since %v", err, c.flood.throttledSince)
		}
	})
}

// The host soon notices that a throttled device has hung up, however much of its data is unread.
func TestFloodThatHungUp(t *testing.T) {
	const frames = 2000 // at 5 a second
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		s := start(t, func(c *Config) { c.MaxFrameRate = 5 })
		d := s.dial()
		s.expect(device.Connected, "127.0.0.1", "")
		d.say(strings.Repeat("x\n", frames))
		d.Close()
		for range frames {
			s.frame()
		}
		s.expect(device.Disconnected, "127.0.0.1", device.ClientClosed)
		if n := testutil.ToFloat64(s.metrics.floods); n > frames/5/2 {
			t.Errorf("the host held back a device that had hung up: %v times", n)
		}
	})
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		s := start(t, func(c *Config) { c.MaxFrameRate = 5 })
		d := s.dial()
		s.expect(device.Connected, "127.0.0.1", "")
		d.say(strings.Repeat("x\n", frames))
		d.reset()
		s.expect(device.Disconnected, "127.0.0.1", device.ConnectionLost)
	})
}
