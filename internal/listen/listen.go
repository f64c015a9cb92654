// Package listen opens the host's listening sockets. An address has the same meaning for all of
// them: 0.0.0.0 is every IPv4 address of the machine, and [::] or an empty host is every address.
//
// A [Gate] bounds the connections of a listener, so that strangers can't keep others out. [Shares]
// divides the file descriptors of the process among the listeners. Start with [NewGate] and
// [Gate.Guard]. [Listener.Serve] is for HTTP.
package listen

import (
	"context"
	"net"
	"net/netip"
)

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
