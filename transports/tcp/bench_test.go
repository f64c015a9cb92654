package tcp

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/pentrough/pentrough/internal/testenv/await"
	"github.com/pentrough/pentrough/transports/device"
)

// idleConnections is how many connections the memory benchmark holds.
const idleConnections = 10_000

// BenchmarkIdleConnections reports what an idle device costs. The peer is a bare server with a
// reader of 4096 bytes a connection and no registry.
func BenchmarkIdleConnections(b *testing.B) {
	if overTLS {
		b.Skip("BenchmarkIdleDevices of cmd/pentrough measures TLS")
	}
	b.Run("tcp", func(b *testing.B) {
		for b.Loop() {
			before := memory()
			tr, err := testConfig().New(env(io.Discard))
			if err != nil {
				b.Fatal(err)
			}
			if err := tr.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			t := tr.(*transport)
			leave := crowd(b, t.listener.Addr().String(), t.sessions)
			b.ReportMetric(float64(memory()-before)/idleConnections/1024, "KB/conn")
			leave()
			if err := tr.Close(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bufio", func(b *testing.B) {
		for b.Loop() {
			before := memory()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			var mu sync.Mutex
			conns := map[string]net.Conn{}
			var wg sync.WaitGroup
			wg.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					mu.Lock()
					conns[conn.RemoteAddr().String()] = conn
					mu.Unlock()
					wg.Go(func() {
						defer conn.Close()
						r := bufio.NewReaderSize(conn, 4096)
						for {
							if _, err := r.ReadSlice('\n'); err != nil {
								return
							}
						}
					})
				}
			})
			leave := crowd(b, l.Addr().String(), func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(conns)
			})
			b.ReportMetric(float64(memory()-before)/idleConnections/1024, "KB/conn")
			leave()
			l.Close()
			wg.Wait()
		}
	})
}

func (t *transport) sessions() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for c := range t.conns {
		if c.session.Load() != nil {
			n++
		}
	}
	return n
}

// memory is what the heap and the stacks hold.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// crowd starts a process that holds idle connections, and waits until the server has them.
func crowd(b *testing.B, addr string, there func() int) (leave func()) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), dialAddr+"="+addr, dialCount+"="+strconv.Itoa(idleConnections))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscanln(stdout, new(string)); err != nil {
		b.Fatalf("waiting for the connections: %v", err)
	}
	await.That(b, "the connections have arrived", func() (any, bool) {
		n := there()
		return fmt.Sprintf("%d of %d", n, idleConnections), n >= idleConnections
	})
	return func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkCommand is one command at a time to one device, and the same bytes by net.Conn.Write,
// or by the Write of a tls.Conn.
func BenchmarkCommand(b *testing.B) {
	payload := []byte("open door 7")
	suffix := ""
	if overTLS {
		suffix = "-tls"
	}
	b.Run("tcp"+suffix, func(b *testing.B) {
		tr, err := testConfig().New(env(io.Discard))
		if err != nil {
			b.Fatal(err)
		}
		defer tr.Close(b.Context())
		if err := tr.Start(b.Context()); err != nil {
			b.Fatal(err)
		}
		defer sinkFor(b, tr.(*transport).listener.Addr().String())()
		devices := tr.(device.Provider).Devices()
		await.That(b, "the device has a session", func() (any, bool) {
			n := tr.(*transport).sessions()
			return n, n > 0
		})
		b.ReportAllocs()
		for b.Loop() {
			w, err := devices.Enqueue("127.0.0.1", payload, device.EnqueueOptions{})
			if err != nil || w.Wait(b.Context()).Fate != device.Sent {
				b.Fatal(err)
			}
		}
	})
	b.Run("net"+suffix, func(b *testing.B) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		if overTLS {
			l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{pki.server.TLS}, SessionTicketsDisabled: true})
		}
		accepted := make(chan net.Conn, 1)
		go func() {
			defer close(accepted)
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if c, ok := conn.(*tls.Conn); ok {
				_ = c.Handshake() // the first write has the error, too
			}
			accepted <- conn
		}()
		defer sinkFor(b, l.Addr().String())()
		conn := await.Receive(b, "the connection", accepted)
		defer conn.Close()
		frame := []byte("open door 7\r\n")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := conn.Write(frame); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// sinkFor connects a device that reads and forgets.
func sinkFor(b *testing.B, addr string) (leave func()) {
	b.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	conn = secure(conn)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, conn) // ends with the connection
	}()
	return func() {
		conn.Close()
		<-done
	}
}
