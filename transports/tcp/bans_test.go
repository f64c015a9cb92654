package tcp

import (
	"errors"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

func (s *server) gatekeeper() device.Gatekeeper { return s.Devices().(device.Gatekeeper) }

func TestKickedDevicesMayReturn(t *testing.T) {
	s := start(t, nil)
	p, name := s.dialAs(1)
	s.expect(device.Connected, name, "")
	if _, err := s.gatekeeper().Kick("::ffff:"+name, "firmware update"); err != nil {
		t.Fatal(err)
	}
	p.closed()
	if e := s.expect(device.Disconnected, name, device.Kicked); e.Detail != "firmware update" {
		t.Errorf("%+v", e)
	}
	if _, err := s.gatekeeper().Kick(name, ""); !errors.Is(err, device.ErrOffline) {
		t.Errorf("kicked again: %v", err)
	}
	s.dialAs(1)
	s.expect(device.Connected, name, "")
}

// A banned device that connects in a loop sees its connections closed. It causes no events.
func TestBannedDevicesAreRefused(t *testing.T) {
	for _, by := range []string{byAddress, byFirstFrame} {
		t.Run(by, func(t *testing.T) {
			s := start(t, func(c *Config) { c.Identity.By = by })
			dial := func(i int) (*peer, string) {
				p, name := s.dialAs(i)
				if by == byFirstFrame {
					name = "lock-" + name
					p.say(name + "\n")
				}
				return p, name
			}
			p, name := dial(1)
			s.expect(device.Connected, name, "")
			banned, err := s.gatekeeper().Ban(device.Ban{Device: name, Reason: "stolen"})
			if err != nil || !banned.Kicked {
				t.Fatalf("%+v: %v", banned, err)
			}
			p.closed()
			if e := s.expect(device.Disconnected, name, device.Kicked); e.Detail != "banned: stolen" {
				t.Errorf("%+v", e)
			}
			const tries = 30
			for range tries {
				again, _ := dial(1)
				again.closed()
			}
			await.That(t, "the refusals are counted", func() (any, bool) {
				n := s.refused(refusedBanned)
				return n, n == tries
			})
			s.logged("the device is banned")
			if lines := strings.Count(s.log.String(), "the device is banned"); lines >= tries {
				t.Errorf("each of %d refusals is logged", tries)
			}
			_, other := dial(2)
			s.expect(device.Connected, other, "") // no event of the banned device came before
			if _, err := s.gatekeeper().Unban(name); err != nil {
				t.Fatal(err)
			}
			dial(1)
			s.expect(device.Connected, name, "")
		})
	}
}

// A unit's name stands for its device.
func TestAUnitsDeviceIsBanned(t *testing.T) {
	s := talking(t, nil)
	p := s.dial()
	p.say("login modem-1\r\n")
	s.expect(device.Connected, "modem-1", "")
	banned, err := s.gatekeeper().Ban(device.Ban{Device: "modem-1/3"})
	if err != nil || banned.Device != "modem-1" || !banned.Kicked {
		t.Errorf("%+v: %v", banned, err)
	}
	if e := s.expect(device.Disconnected, "modem-1", device.Kicked); e.Detail != "banned" {
		t.Errorf("%+v", e)
	}
	if b, err := s.gatekeeper().Unban("modem-1/7"); err != nil || b.Device != "modem-1" {
		t.Errorf("%+v: %v", b, err)
	}
}
