package admin

import (
	"net"
	nethttp "net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// ownNames returns the host names under which a loopback address may be called.
func ownNames() []string {
	names := []string{"localhost"}
	if name, err := os.Hostname(); err == nil {
		names = append(names, strings.ToLower(name))
	}
	return names
}

// ownHostOnly refuses requests to a loopback address under a foreign name: a web page can give its own name that address and so
// read what is meant for this machine.
func (s *Server) ownHostOnly(next nethttp.Handler) nethttp.Handler {
	return nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		local, ok := r.Context().Value(nethttp.LocalAddrContextKey).(net.Addr)
		if ok && loopback(local) && !s.ownHost(r.Host) {
			nethttp.Error(w, "this name isn't one of this machine; use its address or localhost", nethttp.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) ownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.Contains(s.hosts, strings.ToLower(strings.TrimSuffix(host, ".")))
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
