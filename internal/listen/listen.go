// Package listen opens the host's listening sockets, so that an address means the same for each:
// 0.0.0.0 is every IPv4 address of the machine, [::] and an empty host are every address.
//
// A [Gate] bounds the connections of a listener, so that strangers keep nobody out, and [Shares]
// divides the descriptors of the process among the listeners. Start with [NewGate] and [Gate.Guard];
// [Listener.Serve] is for HTTP.
package listen

import (
	"context"
	"net"
	"net/netip"
)

// TCP listens at host:port. The error is that of [net.ListenConfig.Listen].
func TCP(ctx context.Context, c *net.ListenConfig, addr string) (*net.TCPListener, error) {
	l, err := c.Listen(ctx, network(addr), addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// network returns the network in which an address means what it says. In the network "tcp" Go
// takes IPv6 connections at 0.0.0.0 too.
func network(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "tcp" // whose error says what is wrong
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap() == netip.IPv4Unspecified() {
		return "tcp4"
	}
	return "tcp"
}
