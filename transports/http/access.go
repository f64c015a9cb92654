package http

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	nethttp "net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// access decides who may send.
type access struct {
	token  *[sha256.Size]byte // nil: everybody
	origin *nethttp.CrossOriginProtection
	hosts  []string
}

func newAccess(c *Config, host string) *access {
	a := &access{origin: nethttp.NewCrossOriginProtection(), hosts: []string{"localhost", strings.ToLower(host)}}
	for _, h := range c.Hosts {
		a.hosts = append(a.hosts, strings.ToLower(h))
	}
	if name, err := os.Hostname(); err == nil {
		a.hosts = append(a.hosts, strings.ToLower(name))
	}
	if c.Token != "" {
		sum := sha256.Sum256([]byte(c.Token))
		a.token = &sum
	}
	return a
}

// check returns the status with which to refuse a request and why, or 0.
func (a *access) check(r *nethttp.Request) (status int, reason string) {
	if a.token != nil {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(sum[:], a.token[:]) != 1 {
			return nethttp.StatusUnauthorized, "a bearer token is needed"
		}
	} else if local, ok := r.Context().Value(nethttp.LocalAddrContextKey).(net.Addr); ok && loopback(local) && !a.ownHost(r.Host) {
		// A web page can give its own name this machine's loopback address and so pass for the same origin.
		return nethttp.StatusForbidden, "this host name isn't in `hosts`"
	}
	if err := a.origin.Check(r); err != nil {
		return nethttp.StatusForbidden, "requests from other sites are refused"
	}
	return 0, ""
}

// ownHost reports whether a request's Host is an address or a name of this machine.
func (a *access) ownHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return slices.Contains(a.hosts, strings.ToLower(strings.TrimSuffix(host, ".")))
}

func loopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
