// Package listen opens the host's listening sockets. An address has the same meaning for all of
// them: 0.0.0.0 is every IPv4 address of the machine, and [::] or an empty host is every address.
//
// A [Gate] bounds the connections of a listener, so that strangers can't keep others out. [Shares]
// divides the file descriptors of the process among the listeners. Start with [NewGate] and
// [Gate.Guard]. [Listener.Serve] is for HTTP.
package listen

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is how many bytes of a web request the kernel may keep until the host reads them.
// Linux doubles it. By default Linux keeps up to 6 MB, even of a request that the host refuses.
const receiveBuffer = 64 << 10

// Web listens at host:port for HTTP requests. Accepted connections inherit a small receive buffer.
func Web(ctx context.Context, addr string) (*net.TCPListener, error) {
	return TCP(ctx, &net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = SetReceiveBuffer(int(fd), receiveBuffer) })
		return errors.Join(err, failed)
	}}, addr)
}

// SetReceiveBuffer sets how many bytes the kernel may keep until the host reads them.
func SetReceiveBuffer(fd, size int) error {
	return os.NewSyscallError("setsockopt SO_RCVBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size))
}

// TCP listens at host:port. The error is that of [net.ListenConfig.Listen].
func TCP(ctx context.Context, c *net.ListenConfig, addr string) (*net.TCPListener, error) {
	l, err := c.Listen(ctx, networkOf(addr), addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// networkOf returns the argument network of net.Listen for an address. With "tcp", Go would also
// accept IPv6 connections at 0.0.0.0.
func networkOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "tcp" // Listen returns the error
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap() == netip.IPv4Unspecified() {
		return "tcp4"
	}
	return "tcp"
}
