package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/internal/testenv/certs"
)

// The fleets between which the slope is measured.
const (
	fewDevices  = 2_000
	manyDevices = 15_000
)

// idleHost is pentrough, which gives memory back that it doesn't need when SIGUSR2 asks for that,
// and says so in a line.
func idleHost() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR2)
	go func() {
		for range asked {
			debug.FreeOSMemory()
			fmt.Println("freed")
		}
	}()
	main()
}

// BenchmarkIdleDevices reports by how much a host with a status pipeline to a broker grows for
// each device that connects and says nothing: the slope of its resident memory (VmRSS) between two
// fleets, when it has given back what it doesn't need. Devices connect over plain TCP, over TLS,
// and over TLS with a certificate of their own.
func BenchmarkIdleDevices(b *testing.B) {
	server := testenv.Broker(b)
	folder := b.TempDir()
	ca, err := certs.New(folder, "ca")
	must(b, err)
	pair, err := ca.Issue("both", nil)
	must(b, err)
	files := fmt.Sprintf("tls = { cert = %q, key = %q", pair.Cert, pair.Key)
	insecure := &tls.Config{InsecureSkipVerify: true}
	withCert := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair.TLS}}
	for _, c := range []struct {
		name, settings string
		client         *tls.Config
	}{{"plain", "", nil}, {"tls", files + " }", insecure}, {"mutual", fmt.Sprintf("%s, client_ca = %q }", files, ca.Cert), withCert}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				var slopes []float64
				for range benchPairs {
					slope := idleSlope(b, server.VHost(b), c.settings, c.client)
					b.Logf("%.2f KB a device", slope)
					slopes = append(slopes, slope)
				}
				b.ReportMetric(median(slopes), "KB/device")
			}
		})
	}
}

func idleSlope(b *testing.B, url, settings string, client *tls.Config) float64 {
	c := &carrier{b: b, addr: freeAddress(b), admin: freeAddress(b)}
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
max_connections = 16000
%s
[pipeline.status]
from = "devices:events"
to = "broker:status"
handler = { type = "passthrough" }
on_error = "drop"
`, c.admin, url, c.addr, settings), 0o600))
	c.cmd = exec.Command("idlehost", "run", "-c", file)
	out, err := c.cmd.StdoutPipe()
	must(b, err)
	startCarrier(b, c)
	defer c.stop()
	freed := bufio.NewScanner(out)
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	resident := func(devices int) int {
		for i := len(conns); i < devices; i++ {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(benchAddress(i))}}
			conn, err := dialer.Dial("tcp4", c.addr)
			must(b, err)
			if client != nil {
				encrypted := tls.Client(conn, client)
				must(b, encrypted.Handshake())
				conn = encrypted
			}
			conns = append(conns, conn)
		}
		await.That(b, "each device's connection is told", func() (any, bool) {
			n := testenv.Metric(b, strings.TrimPrefix(c.admin, "127.0.0.1:"), "pentrough_pipeline_acked_total")
			return fmt.Sprintf("%d of %d", n, devices), n >= devices
		})
		must(b, c.cmd.Process.Signal(syscall.SIGUSR2))
		for freed.Scan() && freed.Text() != "freed" {
		}
		return testenv.Memory(b, c.cmd.Process.Pid, testenv.Resident)
	}
	few := resident(fewDevices)
	return float64(resident(manyDevices)-few) / (manyDevices - fewDevices)
}
