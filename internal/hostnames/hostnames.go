// Package hostnames protects listeners without a token from web pages.
//
// The author of a page can make the page's own DNS name resolve to the listener's address (DNS
// rebinding). The browser then treats the page's requests to the listener as same-origin, and they
// come from inside the firewall. But their Host header has the page's name, which isn't in
// [Names].
//
// A listener creates its [Names] once and calls [Names.Allow] for each request.
package hostnames

import (
	"net"
	nethttp "net/http"
	"net/netip"
	"os"
	"strings"
)

// Names are the host names that a listener accepts.
type Names map[string]bool

// New returns the names of a listener: the machine's name, localhost, the host in the listen
// address, and more.
func New(listen string, more ...string) Names {
	n := Names{}
	if host, _, err := net.SplitHostPort(listen); err == nil {
		more = append(more, host)
	}
	if name, err := os.Hostname(); err == nil {
		more = append(more, name)
	}
	for _, name := range append(more, "localhost") {
		if name != "" {
			n[canonicalName(name)] = true
		}
	}
	return n
}

// Allow reports whether a listener accepts a request's Host header. It accepts a name of n, an IP
// address, and an empty header, which simple health checks send. A page never has an IP address or
// an empty name.
func (n Names) Allow(host string) bool {
	if host == "" {
		return true
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return n[canonicalName(host)]
}

// canonicalName returns a name in lower case and without the root's dot.
func canonicalName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// ForeignOrigin returns an error if a browser made the request for a page of another site. It
// checks requests of every method, unlike [nethttp.CrossOriginProtection].
func ForeignOrigin(r *nethttp.Request) error {
	asked := *r
	asked.Method = nethttp.MethodPost // CrossOriginProtection doesn't check a GET
	return nethttp.NewCrossOriginProtection().Check(&asked)
}

// Loopback reports whether only this machine can reach an address.
func Loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
