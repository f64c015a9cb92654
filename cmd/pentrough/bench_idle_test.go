package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/internal/testenv/certs"
)

// The fleets between which the slope is measured.
const (
	fewDevices  = 2_000
	manyDevices = 18_000
)

// BenchmarkIdleDevices reports by how much a server grows for each device that connects and says
// nothing: the slope of its resident memory (VmRSS) between two fleets, when it has given back
// what it doesn't need. The host has a status pipeline to a broker. Its devices connect over plain
// TCP, over TLS, and over TLS with a certificate of their own. The peers keep their connections
// and do nothing else: a Go server with a goroutine and a bufio.Reader for each connection, gnet,
// and Twisted. Each round measures all of them in turn.
func BenchmarkIdleDevices(b *testing.B) {
	server := testenv.Broker(b)
	keys := newFleetKeys(b)
	peer := func(client *tls.Config, program string, args ...string) func() float64 {
		return func() float64 {
			addr := freeAddress(b)
			args := slices.Clone(args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "ADDR", addr)
			}
			return idleSlope(b, startFleet(b, addr, program, args...), client, nil)
		}
	}
	gnet := filepath.Join(b.TempDir(), "gnet")
	build := exec.Command("go", "build", "-o", gnet, ".")
	build.Dir, build.Stderr = "../../bench/gnet", os.Stderr
	must(b, build.Run())
	type row struct {
		name  string
		slope func() float64
	}
	rows := []row{
		{"plain", func() float64 { return idleHostSlope(b, server.VHost(b), "", nil) }},
		{"tls", func() float64 { return idleHostSlope(b, server.VHost(b), keys.settings(false), keys.client(false)) }},
		{"mutual", func() float64 { return idleHostSlope(b, server.VHost(b), keys.settings(true), keys.client(true)) }},
		{"bufio", peer(nil, "bareserver", "ADDR")},
		{"bufio-tls", peer(keys.client(false), "bareserver", append([]string{"ADDR"}, keys.files(false)...)...)},
		{"bufio-mutual", peer(keys.client(true), "bareserver", append([]string{"ADDR"}, keys.files(true)...)...)},
		{"gnet", peer(nil, gnet, "ADDR")},
	}
	if exec.Command("/usr/bin/python3", "-c", "import twisted").Run() == nil {
		rows = append(rows, row{"twisted", peer(nil, "/usr/bin/python3", "../../bench/twisted/server.py", "ADDR")})
	} else {
		b.Log("no peer twisted: the package python3-twisted isn't installed")
	}
	for b.Loop() {
		slopes := map[string][]float64{}
		for range benchPairs {
			for _, r := range rows {
				slopes[r.name] = append(slopes[r.name], r.slope())
			}
		}
		for _, r := range rows {
			b.Logf("%s: %s KB a device", r.name, spread(slopes[r.name]))
			b.ReportMetric(median(slopes[r.name]), "KB-"+r.name)
		}
	}
}

// idleHostSlope returns the slope of a host.
func idleHostSlope(b *testing.B, url, settings string, client *tls.Config) float64 {
	addr, admin := freeAddress(b), freeAddress(b)
	file := filepath.Join(b.TempDir(), "idle.toml")
	must(b, os.WriteFile(file, fmt.Appendf(nil, `
[host]
admin = %q
log = { level = "error" }
[transport.broker]
type = "amqp"
url = %q
[transport.broker.topic.status]
exchange = "bench.status"
queue = "status"
[transport.devices]
type = "tcp"
listen = %q
max_connections = 19000
%s
[pipeline.status]
from = "devices:events"
to = "broker:status"
handler = { type = "passthrough" }
on_error = "drop"
`, admin, url, addr, settings), 0o600))
	published := func() int {
		return testenv.Metric(b, strings.TrimPrefix(admin, "127.0.0.1:"), "pentrough_pipeline_acked_total")
	}
	return idleSlope(b, startFleet(b, addr, "idlehost", "run", "-c", file), client, published)
}

// idleSlope returns by how many KB a server grows for a device, and stops the server. published
// returns how many connection events a host has published; it is nil for other servers.
func idleSlope(b *testing.B, s *fleetServer, client *tls.Config, published func() int) float64 {
	defer s.stop()
	var conns []net.Conn
	defer func() { closeAll(conns) }()
	resident := func(devices int) int {
		conns = append(conns, connectFleet(b, s.addr, len(conns), devices, client)...)
		s.awaitFleet(devices)
		if published != nil {
			await.That(b, "each device's connection is told", func() (any, bool) {
				n := published()
				return fmt.Sprintf("%d of %d", n, devices), n >= devices
			})
		}
		s.free()
		return testenv.Memory(b, s.cmd.Process.Pid, testenv.Resident)
	}
	few := resident(fewDevices)
	return float64(resident(manyDevices)-few) / (manyDevices - fewDevices)
}

// fleetKeys are the certificates of a server and its devices.
type fleetKeys struct {
	ca   *certs.Authority
	pair certs.Pair
}

func newFleetKeys(b *testing.B) *fleetKeys {
	ca, err := certs.New(b.TempDir(), "ca")
	must(b, err)
	pair, err := ca.Issue("both", nil)
	must(b, err)
	return &fleetKeys{ca, pair}
}

// settings are the host's for the transport.
func (k *fleetKeys) settings(mutual bool) string {
	text := fmt.Sprintf("tls = { cert = %q, key = %q", k.pair.Cert, k.pair.Key)
	if mutual {
		text += fmt.Sprintf(", client_ca = %q", k.ca.Cert)
	}
	return text + " }"
}

// files are the arguments of bareserver.
func (k *fleetKeys) files(mutual bool) []string {
	files := []string{k.pair.Cert, k.pair.Key}
	if mutual {
		files = append(files, k.ca.Cert)
	}
	return files
}

// client is the devices' configuration.
func (k *fleetKeys) client(mutual bool) *tls.Config {
	c := &tls.Config{InsecureSkipVerify: true}
	if mutual {
		c.Certificates = []tls.Certificate{k.pair.TLS}
	}
	return c
}

// fleetServer is a server of devices, in a process of its own.
type fleetServer struct {
	*carrier
	out *bufio.Scanner
}

func startFleet(b *testing.B, addr, program string, args ...string) *fleetServer {
	b.Helper()
	c := &carrier{b: b, cmd: exec.Command(program, args...), addr: addr}
	out, err := c.cmd.StdoutPipe()
	must(b, err)
	return &fleetServer{startCarrier(b, c), bufio.NewScanner(out)}
}

// descriptors returns how many files and sockets the server has.
func (s *fleetServer) descriptors() int {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	must(s.b, err)
	return len(open)
}

// connectFleet connects the devices from first to last, each from an address of its own, some at a
// time.
func connectFleet(b *testing.B, addr string, first, last int, client *tls.Config) []net.Conn {
	b.Helper()
	const atOnce = 32
	conns := make([]net.Conn, last-first)
	errs := make(chan error, atOnce)
	for part := range atOnce {
		go func() {
			for i := part; i < len(conns); i += atOnce {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(benchAddress(first + i))}}
				conn, err := dialer.Dial("tcp4", addr)
				if err == nil && client != nil {
					encrypted := tls.Client(conn, client)
					conn, err = encrypted, encrypted.Handshake()
				}
				if err != nil {
					errs <- err
					return
				}
				conns[i] = conn
			}
			errs <- nil
		}()
	}
	for range atOnce {
		must(b, <-errs)
	}
	return conns
}

func closeAll(conns []net.Conn) {
	for _, conn := range conns {
		conn.Close()
	}
}

// spread returns the median and the range of figures.
func spread(figures []float64) string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", median(figures), slices.Min(figures), slices.Max(figures))
}
