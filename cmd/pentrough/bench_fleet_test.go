package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/tcp"
)

const (
	commandDevices = 8_000
	commandWrites  = 200_000
	commandPayload = "set output 1 of the relay board to on, and keep it for 30 secs" // 62 bytes
	reconnectFleet = 18_000
)

// BenchmarkFleetCommands reports the CPU time of writing a frame of 64 bytes to a random device of
// 8,000: by the transport, in its own process without pipelines, and by a bare loop of write(2),
// or of the Write of a tls.Conn. The devices read nothing; the kernel has room for all frames.
func BenchmarkFleetCommands(b *testing.B) {
	keys := newFleetKeys(b)
	for _, c := range []struct {
		name, settings string
		files          []string
		client         *tls.Config
	}{{"plain", "", nil, nil}, {"tls", keys.settings(false), keys.files(false), keys.client(false)}} {
		b.Run(c.name, func(b *testing.B) {
			start := func(program string, args ...string) *fleetServer {
				addr := freeAddress(b)
				s := startFleet(b, addr, program, append([]string{addr}, args...)...)
				b.Cleanup(s.stop)
				conns := connectFleet(b, addr, 0, commandDevices, c.client)
				b.Cleanup(func() { closeAll(conns) })
				s.awaitFleet(commandDevices)
				return s
			}
			bare, host := start("bareserver", c.files...), start("transportalone", c.settings)
			for b.Loop() {
				var ratios, hosts, bares []float64
				for range 2 * benchPairs {
					own, peer := host.write(), bare.write()
					ratios, hosts, bares = append(ratios, own/peer), append(hosts, own), append(bares, peer)
				}
				b.Logf("CPU of a command: host %s us, bare loop %s us, ratio %s", spread(hosts), spread(bares), spread(ratios))
				b.ReportMetric(median(ratios), "CPU-host/bare")
			}
		})
	}
}

// awaitFleet waits until a server has that many connections.
func (s *fleetServer) awaitFleet(devices int) {
	s.b.Helper()
	await.That(s.b, "each device is connected", func() (any, bool) {
		n := s.descriptors()
		return fmt.Sprintf("%d of %d", n, devices), n >= devices
	})
}

// write makes the server write to its devices, and returns the CPU time of one write in
// microseconds.
func (s *fleetServer) write() (us float64) {
	s.b.Helper()
	must(s.b, s.cmd.Process.Signal(syscall.SIGUSR1))
	for s.out.Scan() {
		if _, err := fmt.Sscanf(s.out.Text(), "a write takes %f us", &us); err == nil {
			return us
		}
	}
	s.b.Fatalf("%s ended", s.cmd)
	return 0
}

// BenchmarkReconnect reports how long 18,000 devices take to come back over TLS when all of them
// have lost their connections, at a host and at a server that accepts and does nothing else. The
// devices' part is in both figures.
func BenchmarkReconnect(b *testing.B) {
	keys := newFleetKeys(b)
	for b.Loop() {
		var ratios, hosts, bares []float64
		for range benchPairs {
			addr := freeAddress(b)
			bare := reconnectTime(b, startFleet(b, addr, "bareserver", append([]string{addr}, keys.files(false)...)...), keys.client(false))
			addr = freeAddress(b)
			host := reconnectTime(b, startFleet(b, addr, "transportalone", addr, keys.settings(false)), keys.client(false))
			ratios, hosts, bares = append(ratios, host/bare), append(hosts, host), append(bares, bare)
		}
		b.Logf("%d devices over TLS: host %s s, bare server %s s, ratio %s", reconnectFleet, spread(hosts), spread(bares), spread(ratios))
		b.ReportMetric(median(ratios), "time-host/bare")
		b.ReportMetric(median(hosts), "s-host")
	}
}

func reconnectTime(b *testing.B, s *fleetServer, client *tls.Config) float64 {
	b.Helper()
	defer s.stop()
	conns := connectFleet(b, s.addr, 0, reconnectFleet, client)
	s.awaitFleet(reconnectFleet)
	closeAll(conns)
	await.That(b, "no device is connected", func() (any, bool) {
		n := s.descriptors()
		return n, n < reconnectFleet/100
	})
	begun := time.Now()
	conns = connectFleet(b, s.addr, 0, reconnectFleet, client)
	defer closeAll(conns)
	s.awaitFleet(reconnectFleet)
	return time.Since(begun).Seconds()
}

// serveSignals frees memory at each SIGUSR2, and says so in a line. At each SIGUSR1 it writes to
// random devices and says what that took.
func serveSignals(write func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR2 {
				debug.FreeOSMemory()
				fmt.Println("freed")
				continue
			}
			before := processCPU()
			for range commandWrites {
				write()
			}
			fmt.Printf("a write takes %f us\n", float64(processCPU()-before)/commandWrites/1e3)
		}
	}()
}

// free makes the server give back memory that it doesn't need, if it can.
func (s *fleetServer) free() {
	if strings.Contains(s.cmd.Path, "python") {
		return
	}
	must(s.b, s.cmd.Process.Signal(syscall.SIGUSR2))
	for s.out.Scan() && s.out.Text() != "freed" {
	}
}

func processCPU() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// idleHost is pentrough that serves signals.
func idleHost() {
	serveSignals(nil)
	main()
}

// transportAlone is the transport tcp without a host: transportalone ADDR SETTINGS.
func transportAlone() {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	text := fmt.Sprintf("[transport.devices]\ntype = \"tcp\"\nlisten = %q\nmax_connections = 19000\n%s\n", os.Args[1], os.Args[2])
	file, _, err := configs.Parse("alone.toml", []byte(text), configs.Options{})
	check(err)
	t, err := file.Router.Transports[0].Config.(*tcp.Config).New(transports.Env{Name: "devices", Host: "h", Logger: slog.New(slog.DiscardHandler), Now: time.Now, Registerer: prometheus.NewRegistry()})
	check(err)
	check(t.Start(context.Background()))
	devices := t.(device.Provider).Devices()
	payload, names := []byte(commandPayload), make([]string, commandDevices)
	for i := range names {
		names[i] = benchAddress(i)
	}
	serveSignals(func() {
		w, err := devices.Enqueue(names[rand.IntN(len(names))], payload, device.EnqueueOptions{})
		check(err)
		if fate := w.Wait(context.Background()).Fate; fate != device.Sent {
			check(fmt.Errorf("a command ended with fate %d", fate))
		}
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

// bareServer keeps its connections, with a goroutine and a reader of 4096 bytes for each:
// bareserver ADDR [CERT KEY [CLIENT_CA]].
func bareServer() {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	var config *tls.Config
	if len(os.Args) > 2 {
		pair, err := tls.LoadX509KeyPair(os.Args[2], os.Args[3])
		check(err)
		config = &tls.Config{Certificates: []tls.Certificate{pair}, SessionTicketsDisabled: true}
	}
	if len(os.Args) > 4 {
		authority, err := os.ReadFile(os.Args[4])
		check(err)
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		config.ClientCAs.AppendCertsFromPEM(authority)
	}
	l, err := net.Listen("tcp", os.Args[1])
	check(err)
	var mu sync.Mutex
	writers := map[net.Conn]func([]byte) error{}
	go func() {
		for {
			socket, err := l.Accept()
			check(err)
			go func() {
				defer socket.Close()
				conn, write := socket, socketWriter(socket)
				if config != nil {
					encrypted := tls.Server(socket, config)
					if encrypted.Handshake() != nil {
						return
					}
					conn, write = encrypted, func(p []byte) error {
						_, err := encrypted.Write(p)
						return err
					}
				}
				mu.Lock()
				writers[conn] = write
				mu.Unlock()
				r := bufio.NewReaderSize(conn, 4096)
				for {
					if _, err := r.ReadSlice('\n'); err != nil {
						break
					}
				}
				mu.Lock()
				delete(writers, conn)
				mu.Unlock()
			}()
		}
	}()
	frame := []byte(commandPayload + "\r\n")
	var all []func([]byte) error
	serveSignals(func() {
		if all == nil {
			mu.Lock()
			for _, write := range writers {
				all = append(all, write)
			}
			mu.Unlock()
		}
		check(all[rand.IntN(len(all))](frame))
	})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

// socketWriter returns write(2) on a socket.
func socketWriter(socket net.Conn) func([]byte) error {
	raw, err := socket.(*net.TCPConn).SyscallConn()
	if err != nil {
		return func([]byte) error { return err }
	}
	var descriptor int
	_ = raw.Control(func(fd uintptr) { descriptor = int(fd) }) // an error shows in the first write
	return func(p []byte) error {
		_, err := syscall.Write(descriptor, p)
		return err
	}
}
