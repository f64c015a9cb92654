package httprequest

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
)

// place is a host or a network that may be called.
type place struct {
	// name is a host's name or address; empty: it is a network alone.
	name string
	// port is the only one that may be called; empty: any.
	port string
	// networks are the addresses that may be called though they aren't public.
	networks []netip.Prefix
}

// loopback is what the name localhost stands for.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// readPlace reads an entry of allow: a name or an address, with a port or without, or a network.
func readPlace(entry string) (place, error) {
	wrong := fmt.Errorf("%q is no host (a name or an address, with a port or without) and no network such as \"10.0.0.0/8\"", entry)
	if network, err := netip.ParsePrefix(entry); err == nil {
		return place{networks: []netip.Prefix{network.Masked()}}, nil
	}
	if _, err := netip.ParseAddr(entry); err == nil {
		return placeOf(entry, ""), nil
	}
	host, port := entry, ""
	if strings.ContainsAny(entry, ":[]") {
		var err error
		if host, port, err = net.SplitHostPort(entry); err != nil {
			return place{}, wrong
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return place{}, wrong
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return placeOf(host, port), nil
		}
	}
	if host == "" || strings.ContainsFunc(host, notInName) {
		return place{}, wrong
	}
	return placeOf(host, port), nil
}

func notInName(r rune) bool {
	return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r < 0x80
}

func placeOf(host, port string) place {
	p := place{name: canonical(host), port: port}
	if addr, err := netip.ParseAddr(p.name); err == nil {
		addr = plain(addr)
		p.networks = []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}
	} else if p.name == "localhost" {
		p.networks = loopback
	}
	return p
}

// canonical is a host's name as names are compared.
func canonical(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(host); err == nil {
		return plain(addr).String()
	}
	return host
}

// plain is an address without its zone, an IPv4 one that is written as IPv6 as what it is.
func plain(addr netip.Addr) netip.Addr { return addr.WithZone("").Unmap() }

// portOf is the port that a URL names or implies.
func portOf(u *url.URL) string {
	switch port := u.Port(); {
	case port != "":
		return port
	case u.Scheme == schemeHTTPS:
		return "443"
	default:
		return "80"
	}
}

// places are where calls may go.
type places struct {
	all []place
}

// newPlaces returns the places of a configuration. The host of the URL is one on any port, so that it may redirect to itself; its address, if
// it isn't public, on its own port only.
func newPlaces(target *url.URL, allow []string) (places, error) {
	own, address := placeOf(target.Hostname(), ""), placeOf(target.Hostname(), portOf(target))
	own.networks = nil
	p := places{[]place{own, address}}
	for _, entry := range allow {
		read, err := readPlace(entry)
		if err != nil {
			return places{}, fmt.Errorf("allow: %w", err)
		}
		p.all = append(p.all, read)
	}
	return p, nil
}

// admit reports whether a redirect may lead to a URL's host, as it is spelled. What address a name has shows when it is dialled.
func (p places) admit(u *url.URL) bool {
	host, port := canonical(u.Hostname()), portOf(u)
	addr, err := netip.ParseAddr(host)
	return slices.ContainsFunc(p.all, func(q place) bool {
		return q.port == "" && q.name == host || q.port == port && q.name == host || q.name == "" && err == nil && q.contains(addr)
	})
}

// dial returns an error if no connection may be made to an address, given with its port.
func (p places) dial(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &forbidden{fmt.Sprintf("%q is no address", address)}
	}
	addr, port := plain(to.Addr()), strconv.Itoa(int(to.Port()))
	if public(addr) || slices.ContainsFunc(p.all, func(q place) bool { return (q.port == "" || q.port == port) && q.contains(addr) }) {
		return nil
	}
	return &forbidden{fmt.Sprintf("%s is not a public address; allow = [\"%s\"] would let calls go there", addr, addr)}
}

func (p place) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// forbidden is why a connection isn't made.
type forbidden struct{ why string }

func (f *forbidden) Error() string { return f.why }

// special are the networks of IANA's special-purpose registries that aren't reached through the Internet, or lead back to an address of IPv4, as far
// as IPv6's are within its public part.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

// globalV6 is the part of IPv6 that is given out.
var globalV6 = netip.MustParsePrefix("2000::/3")

func prefixes(all ...string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, p := range all {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

// public reports whether an address is one of the Internet.
func public(addr netip.Addr) bool {
	return (addr.Is4() || globalV6.Contains(addr)) && !slices.ContainsFunc(special, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// bracketed is a host as it stands before a port.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
