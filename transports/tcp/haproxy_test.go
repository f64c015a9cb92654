package tcp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// haproxyFile is the configuration in docs/a-port-on-the-internet.md, with short intervals.
const haproxyFile = `
defaults
	mode tcp
	timeout connect 5s
	timeout client 10m
	timeout server 10m

frontend devices
	bind 127.0.0.1:%s
	default_backend hosts

backend hosts
	server host-1 %s %s inter 20ms
`

// haproxy starts haproxy in front of an address, and returns its own address.
func haproxy(t *testing.T, server, options string) string {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		program = "/usr/sbin/haproxy" // where Debian installs it
	}
	folder, port := t.TempDir(), testenv.Port(t)
	file := filepath.Join(folder, "haproxy.cfg")
	if err := os.WriteFile(file, fmt.Appendf(nil, haproxyFile, port, server, options), 0o600); err != nil {
		t.Fatal(err)
	}
	testenv.Launch(t, folder, "haproxy.log", nil, program, "-db", "-f", file)
	return "127.0.0.1:" + port
}

// dialThrough dials from the i-th address of 127.1.0.0/16 as soon as haproxy listens.
func dialThrough(t *testing.T, i int, balancer string) *peer {
	t.Helper()
	var conn net.Conn
	await.That(t, "haproxy listens", func() (any, bool) {
		var err error
		conn, err = dialFrom(t.Context(), i, balancer)
		return err, err == nil
	})
	return newPeer(t, conn, nil)
}

// TestHAProxy connects devices through haproxy. Its health checks leave no trace but the count of
// accepted connections.
func TestHAProxy(t *testing.T) {
	for name, options := range map[string]string{
		"version 1":                       "send-proxy check",
		"version 2":                       "send-proxy-v2 check",
		"version 2 with a TLV":            "send-proxy-v2 proxy-v2-options unique-id,crc32c check",
		"checks without a header":         "send-proxy-v2 check port PORT",
		"checks with a header on request": "send-proxy-v2 check port PORT check-send-proxy",
	} {
		for _, by := range []string{byAddress, byFirstFrame} {
			t.Run(name+" by "+by, func(t *testing.T) {
				t.Parallel()
				s := start(t, func(c *Config) {
					c.Identity.By = by
					c.ProxyProtocol = &proxyProtocol{From: []network{{netip.MustParsePrefix("127.0.0.1/32")}}, Timeout: time.Minute}
				})
				_, port, _ := net.SplitHostPort(s.addr)
				balancer := haproxy(t, s.addr, strings.ReplaceAll(options, "PORT", port))
				// haproxy resets checks without a header before the kernel has accepted them.
				if !strings.Contains(name, "without a header") {
					await.That(t, "haproxy checks the server's health", func() (any, bool) {
						n := testutil.ToFloat64(s.metrics.accepted)
						return fmt.Sprintf("%v connections", n), n >= 5
					})
				}
				for i := range 3 {
					d := dialThrough(t, i, balancer)
					id := d.LocalAddr().(*net.TCPAddr).IP.String()
					d.say("door\nfirst\n")
					if by == byFirstFrame {
						id = "door"
					}
					if e := s.expect(device.Connected, id, ""); e.RemoteAddr != d.LocalAddr().String() {
						t.Errorf("remote_addr is %s, want %s", e.RemoteAddr, d.LocalAddr())
					}
					if by == byAddress {
						s.frame()
					}
					if got := s.frame(); got != "first" {
						t.Errorf("got the frame %q", got)
					}
					if w := s.send(id, "open"); w.Fate != device.Sent {
						t.Errorf("got %+v", w)
					}
					d.hear("open\r\n")
					d.Close()
					s.expect(device.Disconnected, id, device.ClientClosed)
				}
				if n := testutil.CollectAndCount(s.metrics.refused); n != 0 {
					t.Errorf("connections were refused:\n%s", s.log)
				}
			})
		}
	}
}

// Without proxy_protocol, a PROXY header of haproxy doesn't become data.
func TestHAProxyThatIsNotNamed(t *testing.T) {
	plainOnly(t)
	s := start(t, func(c *Config) { c.Identity.By = byFirstFrame })
	balancer := haproxy(t, s.addr, "send-proxy-v2")
	d := dialThrough(t, 1, balancer)
	d.say("door\n")
	d.closed()
	s.logged("reason=proxy-header")
}
