// Package hostnames protects listeners without a token from web pages. A page's own DNS name can
// be made to resolve to the listener's address (DNS rebinding). For the browser, the page's
// requests to the listener are then same-origin, and they come from inside the firewall. But
// their Host header has the page's name, which no [Names] has.
//
// A listener makes its [Names] once and asks them about each request.
package hostnames

import (
	"net"
	nethttp "net/http"
	"net/netip"
	"os"
	"strings"
)

// Names are the host names by which a listener may be called.
type Names map[string]bool

// New returns the names of a listener: the machine's, localhost, the one in the address that it
// listens on, and more.
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
			n[plain(name)] = true
		}
	}
	return n
}

// Allow reports whether a request's Host header is one of the names, an IP address, or empty, as
// simple health checks send it. No page has an address or nothing for its name.
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
	return n[plain(host)]
}

// plain returns a name as it is compared: in lower case, without the dot of the root.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// ForeignOrigin returns an error if a browser made the request for a page of another site. Unlike
// [nethttp.CrossOriginProtection], it checks requests of every method.
func ForeignOrigin(r *nethttp.Request) error {
	asked := *r
	asked.Method = nethttp.MethodPost // a GET isn't checked
	return nethttp.NewCrossOriginProtection().Check(&asked)
}

// Loopback reports whether only this machine reaches an address.
func Loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
