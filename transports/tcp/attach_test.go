package tcp

import (
	"strings"
	"testing"

	"github.com/pentrough/pentrough/transports/device"
)

// attaching starts a transport whose devices may speak for others.
func attaching(t *testing.T, change func(*Config)) *server {
	t.Helper()
	return talking(t, func(c *Config) {
		c.Identity.Attach = 10
		if change != nil {
			change(c)
		}
	})
}

func TestAFrameAttachesADevice(t *testing.T) {
	s := attaching(t, nil)
	d := s.dial()
	d.say("login hub\r\npos m1:north\r\npos m2:south\r\npos hub:here\r\n")
	d.hear("welcome\r\n")
	for _, name := range []string{"hub", "m1", "m2"} {
		if e := s.expect(device.Connected, name, ""); e.RemoteAddr != d.LocalAddr().String() {
			t.Errorf("got the event %+v", e)
		}
	}
	for _, want := range []string{"m1 pos m1:north", "m2 pos m2:south", "hub pos hub:here"} {
		if got := s.datum(); got.Device+" "+got.Payload != want {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
	if w := s.send("m1/7", "go"); w.Fate != device.Sent {
		t.Errorf("the command: %+v", w)
	}
	d.hear("1=m1@7 go\r\n")
	d.say("login m3\r\n") // the response comes although m3 isn't the first device
	d.hear("welcome\r\n")
	s.expect(device.Connected, "m3", "")

	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	ended := map[string]bool{}
	for range 4 {
		e := s.event()
		if ended[e.Device] = true; e.Type != device.Disconnected || e.Reason != device.ClientClosed {
			t.Errorf("got the event %+v", e)
		}
	}
	if len(ended) != 4 {
		t.Errorf("ended: %v", ended)
	}
}

// A device that leaves the inventory loses its place. The connection and its other devices stay.
func TestAnAttachedDeviceThatIsUnlisted(t *testing.T) {
	known := &listed{}
	known.set("hub", "m1")
	s := startWith(t, func(c *Config) {
		c.Framing, c.Protocol, c.Allow, c.Identity.Attach = nil, talkConfig{}, allowKnown, 10
	}, known)
	d := s.dial()
	d.say("login hub\r\npos m1:1\r\nlogin stranger\r\nbeat\r\n")
	d.hear("welcome\r\nON")
	s.expect(device.Connected, "hub", "")
	s.expect(device.Connected, "m1", "")
	s.logged(`the inventory doesn't list the device \"stranger\"`)
	known.set("hub")
	s.expect(device.Disconnected, "m1", device.Kicked)
	d.say("pos m1:2\r\nbeat\r\n")
	d.hear("ON")
	if got := s.frame(); got != "pos m1:1" {
		t.Errorf("got %q", got)
	}
}

// A recording of an attached device has everything that passes on the connection. It begins when
// the device is attached.
func TestRecordAnAttachedDevice(t *testing.T) {
	s := attaching(t, nil)
	early, _ := s.record("m1", false)
	d := s.dial()
	d.say("login hub\r\n")
	d.hear("welcome\r\n")
	d.say("pos m1:1\r\n")
	s.datum() // so the recording has begun
	late, _ := s.record("m1", false)
	d.say("beat\r\n")
	d.hear("ON")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want := "m1, whole false: device: beat\r\n host: ON client_closed"
	for _, r := range []*device.Recording{early, late} {
		if got := recorded(t, r); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestAttachNeedsAProtocol(t *testing.T) {
	c := testConfig()
	c.Identity.Attach = 1
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), `identity.attach: needs a protocol`) {
		t.Errorf("got %v", err)
	}
}
