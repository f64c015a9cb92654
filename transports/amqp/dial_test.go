package amqp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pentrough/pentrough/internal/testenv/await"
)

// deaf returns a port whose kernel doesn't answer, as if the network to the broker were broken.
// The returned function makes it answer.
func deaf(t *testing.T) (addr netip.AddrPort, hear func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	// At most one connection may wait to be accepted.
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().(*net.TCPAddr).AddrPort()
	waiting, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	heard := make(chan struct{})
	go func() {
		defer close(accepted)
		<-heard
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	hear = func() { close(heard) }
	t.Cleanup(func() {
		waiting.Close()
		l.Close()
		<-accepted
	})
	return addr, hear
}

// attempts returns how many connections to addr wait for the kernel's first answer.
func attempts(t *testing.T, addr netip.AddrPort) int {
	t.Helper()
	table, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(table), fmt.Sprintf(":%04X 02 ", addr.Port()))
}

func noAttempts(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	await.That(t, "no attempt is left", func() (any, bool) {
		n := attempts(t, addr)
		return n, n == 0
	})
}

func TestABrokerThatAnswersNothingIsAskedAgain(t *testing.T) {
	addr, hear := deaf(t)
	connected := make(chan error, 1)
	go func() {
		conn, err := connectRedialing(t.Context(), addr.String())
		if err == nil {
			conn.Close()
		}
		connected <- err
	}()
	await.That(t, "three attempts wait for an answer", func() (any, bool) {
		n := attempts(t, addr)
		return n, n >= 3
	})
	hear()
	if err := <-connected; err != nil {
		t.Error(err)
	}
	noAttempts(t, addr)
}

func TestABrokerThatAnswersNothingIsGivenUpInTime(t *testing.T) {
	addr, hear := deaf(t)
	defer hear()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if conn, err := connectRedialing(ctx, addr.String()); err == nil {
		t.Error("connected to ", conn.RemoteAddr())
	}
	noAttempts(t, addr)
}
