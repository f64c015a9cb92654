package tcp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/codec/line"
	"github.com/pentrough/pentrough/transports/device"
)

func TestNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8": "", "10.0.0.7/32": "", "0.0.0.0/0": "", "2001:db8::/32": "", "::/0": "",
		"10.0.0.7":           "for this one address write 10.0.0.7/32",
		"2001:db8::1":        "for this one address write 2001:db8::1/128",
		"10.0.0.7/8":         "the address has bits behind its first 8; write 10.0.0.0/8 for the network, or 10.0.0.7/32 for the address",
		"::ffff:10.0.0.0/96": "write the IPv4 network without ::ffff:, such as 10.0.0.0/32",
		"10.0.0.0/33":        "it isn't a network such as 10.0.0.0/8 or 2001:db8::/32",
		"fe80::1%eth0/64":    "it isn't a network",
		"office":             "it isn't a network",
		"":                   "it isn't a network",
	} {
		var n network
		switch err := n.UnmarshalText([]byte(text)); {
		case want == "" && (err != nil || n.String() != text):
			t.Errorf("%q is %v, %v", text, n, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// A connection from elsewhere is closed, logged once a minute for each address, and counted. It
// makes no session, and displaces nobody.
func TestAllowFrom(t *testing.T) {
	s := start(t, func(c *Config) {
		c.AllowFrom = []network{{netip.MustParsePrefix("127.1.0.0/16")}}
		c.MaxConnections = 1
	})
	for range 3 {
		s.dial().closed()
	}
	if got := s.refused("not-allowed"); got != 3 {
		t.Errorf("%v refusals are counted", got)
	}
	s.logged(`reason=not-allowed err="allow_from has no network with the address"`)
	if n := strings.Count(s.log.String(), "refusing a connection"); n != 1 {
		t.Errorf("%d lines:\n%s", n, s.log)
	}
	_, name := s.dialAs(1)
	s.expect(device.Connected, name, "")
}

func TestRateOfAnAddress(t *testing.T) {
	s := start(t, func(c *Config) { c.Identity.By, c.PerAddress.Rate = byFirstFrame, 1 })
	d := s.dial()
	d.say("door\n")
	s.expect(device.Connected, "door", "")
	await.That(t, "a connection is refused", func() (any, bool) {
		s.dial()
		n := s.refused("address-rate")
		return n, n > 0
	})
	s.logged(`reason=address-rate err="the address opens more than per_address.rate, 1 connections a second"`)
	other, _ := s.dialAs(1)
	other.say("window\n")
	s.expect(device.Connected, "window", "")
}

// Connections beyond the rate wait, and none is refused.
func TestMaxAcceptRate(t *testing.T) {
	const rate, devices = 20, 30
	s := start(t, func(c *Config) { c.MaxAcceptRate = rate })
	begin := time.Now()
	for i := range devices {
		_, name := s.dialAs(i)
		s.connected(name)
	}
	if took, least := time.Since(begin), (devices-rate-1)*time.Second/rate; took < least {
		t.Errorf("%d devices connected in %v, at %d a second", devices, took, rate)
	}
}

// Junk of a session counts as a refusal.
func TestBans(t *testing.T) {
	for name, junk := range map[string]func(*Config){
		"refused": func(c *Config) { c.Identity.By = byFirstFrame },
		"session": func(*Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *Config) {
				junk(c)
				c.Framing, c.PerAddress = &line.Config{Max: 10, Terminator: "crlf"}, perAddress{Refusals: 2, Ban: time.Hour}
			})
			for range 2 {
				d := s.dial()
				d.say(strings.Repeat("x", 100))
				d.closed()
			}
			s.logged(`level=WARN msg="banning an address" address=127.0.0.1 for=1h0m0s refusals=2`)
			s.dial().closed()
			if got := s.refused("address-banned"); got != 1 {
				t.Errorf("%v connections are refused because of the ban", got)
			}
			d, _ := s.dialAs(1)
			d.say("door\n")
			for e := s.event(); e.Type != device.Connected || e.Device == "127.0.0.1"; e = s.event() {
			}
		})
	}
}
