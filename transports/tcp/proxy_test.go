package tcp

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// behind starts a transport whose balancers are in 127.1.0.0/16. The first frame names a device.
func behind(t *testing.T, change func(*Config)) *server {
	t.Helper()
	plainOnly(t)
	return start(t, func(c *Config) {
		c.Identity.By = byFirstFrame
		c.ProxyProtocol = &proxyProtocol{From: []network{{netip.MustParsePrefix("127.1.0.0/16")}}, Timeout: time.Minute}
		if change != nil {
			change(c)
		}
	})
}

// plainOnly skips a test whose connections begin with bytes that aren't encrypted.
// TestAProxyHeaderBeforeTheHandshake is about TLS.
func plainOnly(t *testing.T) {
	t.Helper()
	if overTLS {
		t.Skip("the connection begins with a PROXY header, which isn't encrypted")
	}
}

// The PROXY header comes before the TLS handshake.
func TestAProxyHeaderBeforeTheHandshake(t *testing.T) {
	plainOnly(t)
	s := start(t, func(c *Config) {
		c.TLS, c.Identity.By = serverTLS(), byFirstFrame
		c.ProxyProtocol = &proxyProtocol{From: []network{{netip.MustParsePrefix("127.1.0.0/16")}}, Timeout: time.Minute}
	})
	for i, version := range []byte{1, 2} {
		raw, err := dialFrom(t.Context(), i, s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(raw, header(t, version, "198.51.100.7:5000")); err != nil {
			t.Fatal(err)
		}
		d := newPeer(t, tls.Client(raw, clientTLS()), nil)
		d.say("door\r\n")
		if e := s.expect(device.Connected, "door", ""); e.RemoteAddr != "198.51.100.7:5000" {
			t.Errorf("got %+v", e)
		}
		s.send("door", "open")
		d.hear("open\r\n")
		d.Close()
		s.expect(device.Disconnected, "door", device.ClientClosed)
	}
	// A health check of a balancer makes no handshake.
	raw, err := dialFrom(t.Context(), 3, s.addr)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, raw, nil)
	p.say(v2(0x20, 0, ""))
	p.closed()
	if got := s.refused(refusedHandshake); got != 0 {
		t.Errorf("%v handshakes were refused", got)
	}
}

// header returns a PROXY header of a version.
func header(t *testing.T, version byte, source string, tlvs ...proxyproto.TLV) string {
	t.Helper()
	from := netip.MustParseAddrPort(source)
	to := netip.MustParseAddrPort("192.0.2.9:8123")
	if from.Addr().Is6() {
		to = netip.MustParseAddrPort("[2001:db8::9]:8123")
	}
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// v2 returns a header of version 2 with a command, a family and a body.
func v2(command, family byte, body string) string {
	b := append(slices.Clone(proxyproto.SIGV2), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(b) + body
}

func TestProxyHeaders(t *testing.T) {
	long := proxyproto.TLV{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, 3000)}
	for _, by := range []string{byFirstFrame, byAddress} {
		s := behind(t, func(c *Config) { c.Identity.By = by })
		for i, tt := range []struct{ header, source string }{
			{header(t, 1, "198.51.100.7:5000"), "198.51.100.7:5000"},
			{header(t, 2, "198.51.100.8:5000"), "198.51.100.8:5000"},
			{header(t, 1, "[2001:db8::7]:5000"), "[2001:db8::7]:5000"},
			{header(t, 2, "[2001:db8::8]:5000"), "[2001:db8::8]:5000"},
			{header(t, 2, "198.51.100.10:5000", long), "198.51.100.10:5000"},
			{"PROXY TCP6 ::ffff:198.51.100.9 2001:db8::9 5000 8123\r\n", "198.51.100.9:5000"},
		} {
			for _, pieces := range []bool{false, true} {
				name := netip.MustParseAddrPort(tt.source).Addr().String()
				said := "one\ntwo\n"
				if by == byFirstFrame {
					name = fmt.Sprintf("device-%d-%v", i, pieces)
					said = name + "\n" + said
				}
				d, _ := s.dialAs(i)
				if said = tt.header + said; pieces {
					for _, b := range []byte(said) {
						d.say(string([]byte{b}))
					}
				} else {
					d.say(said)
				}
				if e := s.expect(device.Connected, name, ""); e.RemoteAddr != tt.source {
					t.Errorf("%q: remote_addr is %s", tt.header, e.RemoteAddr)
				}
				for _, want := range []string{"one", "two"} {
					if got := s.frame(); got != want {
						t.Errorf("%q: got the frame %q", tt.header, got)
					}
				}
				s.send(name, "open")
				d.hear("open\r\n")
				d.Close()
				s.expect(device.Disconnected, name, device.ClientClosed)
			}
		}
	}
}

// A header may be followed by nothing for a long time, and by a device at another address.
func TestDevicesBehindABalancer(t *testing.T) {
	s := behind(t, func(c *Config) { c.Identity.By = byAddress })
	var peers []*peer
	for i := range 3 {
		d, _ := s.dialAs(1)
		d.say(header(t, 2, fmt.Sprintf("198.51.100.%d:5000", i)))
		peers = append(peers, d)
		s.expect(device.Connected, fmt.Sprintf("198.51.100.%d", i), "")
	}
	for i, d := range peers {
		s.send(fmt.Sprintf("198.51.100.%d", i), "open")
		d.hear("open\r\n")
	}
	direct := s.dial() // not from a balancer
	direct.say("hello\n")
	s.expect(device.Connected, "127.0.0.1", "")
}

// A device sees that the host closes the connection, the log says why, and the reason is counted.
func TestBadProxyHeaders(t *testing.T) {
	s := behind(t, nil)
	counted := 0.0
	for i, tt := range []struct {
		name, said string
		ends       bool // the peer closes its sending side
		log        string
	}{
		{"no header", "hello\n", false, `reading the PROXY header \"hello\\n\": proxyproto: proxy protocol signature not present; the balancer needs a setting such as send-proxy-v2`},
		{"almost a header of version 1", "PROXX TCP4 ", false, "signature not present"},
		{"almost a header of version 2", "\r\n\r\n\x00\r\nQUIX", false, "signature not present"},
		{"an endless header of version 1", "PROXY TCP4 " + strings.Repeat("1", 5000), false, "its first 107 bytes have no end of line"},
		{"a long header of version 1", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", false, "its first 107 bytes have no end of line"},
		{"LF alone", "PROXY TCP4 198.51.100.7 192.0.2.9 5000 8123\n", false, `must end with \\r\\n`},
		{"an unknown family", "PROXY TCP5 198.51.100.7 192.0.2.9 5000 8123\r\n", false, "can't read address family or protocol"},
		{"a name as the address", "PROXY TCP4 localhost 192.0.2.9 5000 8123\r\n", false, "invalid address"},
		{"IPv6 in TCP4", "PROXY TCP4 2001:db8::1 192.0.2.9 5000 8123\r\n", false, "invalid address"},
		{"a zone", "PROXY TCP6 fe80::1%eth0 2001:db8::9 5000 8123\r\n", false, "invalid address"},
		{"a large port", "PROXY TCP4 198.51.100.7 192.0.2.9 65536 8123\r\n", false, "invalid port number"},
		{"too few words", "PROXY TCP4 198.51.100.7\r\n", false, "can't read address family or protocol"},
		{"truncated version 1", "PROXY TCP4 198.51.100.7 192.0.2.9 50", true, `\"PROXY TCP4 198.51.100.7 192.0.2.9 50\": EOF`},
		{"truncated signature", "\r\n\r\n", true, `\"\\r\\n\\r\\n\": EOF`},
		{"truncated version 2", header(t, 2, "198.51.100.7:5000")[:20], true, "EOF"},
		{"an unknown version", v2(0x31, 0x11, strings.Repeat("x", 12)), false, "unsupported proxy protocol version and command"},
		{"an unknown command", v2(0x2f, 0x11, strings.Repeat("x", 12)), false, "unsupported proxy protocol version and command"},
		{"PROXY without an address", v2(0x21, 0x00, ""), false, "unsupported address family and protocol"},
		{"a short address", v2(0x21, 0x11, "xxxx"), false, "invalid length"},
		{"a long header of version 2", v2(0x21, 0x11, strings.Repeat("x", 5000)), false, "it has 5016 bytes; at most 4096 are allowed"},
		{"an address of a UNIX socket", v2(0x21, 0x31, strings.Repeat("x", 216)), false, "the PROXY header has no TCP address"},
		{"UDP", v2(0x21, 0x12, strings.Repeat("x", 12)), false, "the PROXY header has no TCP address"},
		{"a second header", header(t, 2, "198.51.100.100:5000") + header(t, 1, "198.51.100.8:5000"), false, "a second PROXY header follows the first"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := s.dialAs(i)
			if _, err := d.Write([]byte(tt.said)); err != nil {
				t.Fatal(err)
			}
			if tt.ends {
				if err := d.Conn.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			d.closed()
			s.logged(tt.log)
			counted++
			s.counts(refusedHeader, counted)
		})
	}
	s.onlyDevice("afterwards")
}

// counts waits until that number of connections is refused for a reason.
func (s *server) counts(reason string, want float64) {
	s.Helper()
	await.That(s.T, "the refusals are counted as "+reason, func() (any, bool) {
		got := s.refused(reason)
		return fmt.Sprintf("%v, want %v", got, want), got == want
	})
}

// onlyDevice connects a device, which is the first that there ever was.
func (s *server) onlyDevice(name string) {
	s.Helper()
	d, _ := s.dialAs(5000)
	d.say(header(s.T, 2, "198.51.100.77:5000") + name + "\n")
	s.expect(device.Connected, name, "")
}

func TestLateProxyHeaders(t *testing.T) {
	for name, said := range map[string]string{
		"nothing": "", "half of version 1": "PROXY TCP4 198", "half of version 2": header(t, 2, "198.51.100.7:5000")[:18],
	} {
		t.Run(name, func(t *testing.T) {
			s := behind(t, func(c *Config) { c.ProxyProtocol.Timeout = 20 * time.Millisecond })
			d, _ := s.dialAs(1)
			_, _ = d.Write([]byte(said)) // the host may have closed the connection
			d.closed()
			s.logged("it wasn't complete within proxy_protocol.timeout, 20ms")
			s.logged("reason=proxy-header")
			s.counts(refusedHeader, 1)
		})
	}
}

// The header and the first frame have to arrive within identity.timeout, too. On a busy machine,
// the host may end a connection before its bytes arrive, so the test tries again.
func TestLateFirstFrameBehindABalancer(t *testing.T) {
	s := behind(t, func(c *Config) { c.Identity.Timeout = 20 * time.Millisecond })
	for _, tt := range []struct {
		said func(i int) string
		want string
	}{
		{
			func(int) string { return "PROXY TCP4 198" },
			`reason=proxy-header err="reading the PROXY header \"PROXY TCP4 198\": it didn't arrive within identity.timeout"`,
		},
		{
			func(i int) string { return header(t, 2, fmt.Sprintf("198.51.100.%d:5000", i)) + "do" },
			`reason=auth_error err="reading the first frame: it didn't arrive within identity.timeout, after 2 bytes`,
		},
	} {
		i := 0
		await.That(t, fmt.Sprintf("the log says %q", tt.want), func() (any, bool) {
			i++
			d, _ := s.dialAs(i)
			_, _ = d.Write([]byte(tt.said(i))) // the host may have closed the connection
			d.closed()
			log := s.log.String()
			return log, strings.Contains(log, tt.want)
		})
	}
}

// A PROXY header from an address that isn't a balancer's never becomes data, nor a device's name.
func TestForbiddenProxyHeaders(t *testing.T) {
	plainOnly(t)
	const log = "it begins with a PROXY header, and its address isn't in proxy_protocol.from"
	for name, header := range map[string]string{
		"version 1": header(t, 1, "198.51.100.7:5000"), "version 2": header(t, 2, "198.51.100.7:5000"),
		"UNKNOWN": "PROXY UNKNOWN\r\n", "LOCAL": v2(0x20, 0, ""),
	} {
		t.Run(name, func(t *testing.T) {
			s := behind(t, nil)
			d := s.dial()
			d.say(header + "door\ndata\n")
			d.closed()
			s.logged(log)
			s.counts(refusedHeader, 1)
			s.onlyDevice("another")

			s = start(t, nil) // no balancers; the address names the device
			d = s.dial()
			s.expect(device.Connected, "127.0.0.1", "")
			d.say(header + "data\n")
			d.closed()
			s.expect(device.Disconnected, "127.0.0.1", device.ProtocolError)
			s.logged(log)
			s.counts(refusedHeader, 1)
			d, _ = s.dialAs(1)
			d.say("the first data\n")
			if got := s.frame(); got != "the first data" {
				t.Errorf("got the frame %q", got)
			}
		})
	}
}

// Health checks of a balancer leave no trace but the count of accepted connections.
func TestHealthChecks(t *testing.T) {
	s := behind(t, func(c *Config) { c.Identity.By = byAddress })
	checks := map[string]func(d *peer){
		"UNKNOWN":           func(d *peer) { d.say("PROXY UNKNOWN\r\n"); d.closed() },
		"UNKNOWN with more": func(d *peer) { d.say("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"); d.closed() },
		"LOCAL":             func(d *peer) { d.say(v2(0x20, 0, "")); d.closed() },
		"LOCAL with an address": func(d *peer) {
			d.say(strings.Replace(header(t, 2, "198.51.100.7:5000"), "\x21", "\x20", 1))
			d.closed()
		},
		"version 1 with the balancer's address": func(d *peer) {
			d.say(header(t, 1, d.LocalAddr().String()))
			d.closed()
		},
		"a connection that is closed": func(d *peer) { d.Close() },
		"a connection that is reset": func(d *peer) {
			if err := d.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Error(err)
			}
			d.Close()
		},
	}
	for _, check := range checks {
		d, _ := s.dialAs(1)
		check(d)
	}
	await.That(t, "the checks have ended", func() (any, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		accepted := testutil.ToFloat64(s.metrics.accepted)
		return fmt.Sprintf("%v accepted, %d open", accepted, len(s.conns)), int(accepted) == len(checks) && len(s.conns) == 0
	})
	if n := testutil.CollectAndCount(s.metrics.refused); n != 0 {
		t.Errorf("%d reasons are counted", n)
	}
	if lines := strings.Count(s.log.String(), "\n"); lines != 1 {
		t.Errorf("the log should only say that the host listens:\n%s", s.log)
	}
	d, _ := s.dialAs(2)
	d.say(header(t, 2, "198.51.100.7:5000"))
	s.expect(device.Connected, "198.51.100.7", "")
}

// A silent balancer's connections are displaced by their own addresses, as those of other devices.
func TestLimitsBehindABalancer(t *testing.T) {
	s := behind(t, func(c *Config) {
		c.AllowFrom = []network{{netip.MustParsePrefix("198.51.100.0/24")}}
		c.PerAddress = perAddress{Connections: 2, Refusals: 1, Ban: time.Hour}
	})
	from := func(source, name string) *peer {
		d, _ := s.dialAs(1)
		d.say(header(t, 2, source) + name + "\n")
		return d
	}
	for i := range 5 {
		name := fmt.Sprint("device-", i)
		from(fmt.Sprintf("198.51.100.%d:5000", i), name)
		s.expect(device.Connected, name, "")
	}
	from("198.51.100.1:5001", "device-5")
	s.expect(device.Connected, "device-5", "")
	from("198.51.100.1:5002", "device-6").closed()
	s.logged(`peer=198.51.100.1:5002 reason=address-connections err="the address has 2 connections, as many as per_address.connections allows"`)
	from("203.0.113.1:5000", "device-7").closed()
	s.logged(`peer=203.0.113.1:5000 reason=not-allowed`)
	from("198.51.100.9:5000", "no name\x00").closed()
	s.logged("banning an address\" address=198.51.100.9 for=1h0m0s refusals=1")
	from("198.51.100.9:5001", "device-8").closed()
	for reason, want := range map[string]float64{"address-connections": 1, "not-allowed": 1, "address-banned": 1, refusedAuth: 1} {
		s.counts(reason, want)
	}
}

func FuzzHeaderSize(f *testing.F) {
	f.Add([]byte("PROXY TCP4 198.51.100.7 192.0.2.9 5000 8123\r\nhello"))
	f.Add(append(slices.Clone(proxyproto.SIGV2), 0x21, 0x11, 0, 12))
	f.Fuzz(func(t *testing.T, p []byte) {
		p = p[:min(len(p), maxHeaderV2+100)]
		size, err := headerSize(p)
		if size > len(p) || size > maxHeaderV2 || err != nil && size != 0 {
			t.Fatalf("headerSize(%q) = %d, %v", p, size, err)
		}
		// The bytes of a header arrive in pieces. No piece makes another header of it.
		for n := range p {
			early, earlyErr := headerSize(p[:n])
			switch {
			case earlyErr != nil && err == nil, early != 0 && early != size:
				t.Fatalf("headerSize(%q) = %d, %v; of all bytes %d, %v", p[:n], early, earlyErr, size, err)
			case size > 0 && n < size && early != 0:
				t.Fatalf("headerSize(%q) = %d", p[:n], early)
			}
		}
		if size > 0 && !bytes.HasPrefix(p, prefixV1) && !bytes.HasPrefix(p, proxyproto.SIGV2) {
			t.Fatalf("%q has no prefix", p)
		}
	})
}
