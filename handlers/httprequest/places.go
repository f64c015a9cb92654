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
	// name is a host's name; empty: the place is its networks alone.
	name string
	// port is the only one that may be called; empty: any.
	port string
	// networks are the addresses that may be called though they aren't public, in the zone if one
	// is named.
	networks []netip.Prefix
	zone     string
}

// loopback is what the name localhost stands for.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// readPlace reads an entry of allow: a name or an address, with a port or without, or a network.
func readPlace(entry string) (place, error) {
	wrong := fmt.Errorf("%q is no host (a name or an address, with a port or without) and no network such as \"10.0.0.0/8\"", entry)
	if network, err := netip.ParsePrefix(entry); err == nil {
		return place{networks: []netip.Prefix{network.Masked()}}, nil
	}
	if addr, err := netip.ParseAddr(entry); err == nil && !strings.ContainsFunc(addr.Zone(), notInName) {
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
		if addr, err := netip.ParseAddr(host); err == nil && !strings.ContainsFunc(addr.Zone(), notInName) {
			return placeOf(host, port), nil
		}
	}
	if canonical(host) == "" || strings.ContainsFunc(host, notInName) {
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
		p.name, p.networks, p.zone = "", []netip.Prefix{netip.PrefixFrom(addr.WithZone(""), addr.BitLen())}, addr.Zone()
	} else if p.name == "localhost" {
		p.networks = loopback
	}
	return p
}

// canonical is a host's name as names are compared.
func canonical(host string) string {
	host = strings.TrimSuffix(host, ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().String() // IPv4 that is written as IPv6 is IPv4; a zone may have capitals
	}
	return strings.ToLower(host)
}

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
	own, address := place{name: canonical(target.Hostname())}, placeOf(target.Hostname(), portOf(target))
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
		return (q.port == "" || q.port == port) && (q.name == host || q.name == "" && err == nil && q.contains(addr))
	})
}

// dial returns an error if no connection may be made to an address, given with its port.
func (p places) dial(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &forbidden{fmt.Sprintf("%q is no address", address)}
	}
	addr, port := to.Addr().Unmap(), strconv.Itoa(int(to.Port()))
	if public(addr) || slices.ContainsFunc(p.all, func(q place) bool { return (q.port == "" || q.port == port) && q.contains(addr) }) {
		return nil
	}
	return &forbidden{fmt.Sprintf("%s is not a public address; allow = [\"%s\"] would let calls go there", addr, addr)}
}

func (p place) contains(addr netip.Addr) bool {
	if p.zone != "" && p.zone != addr.Zone() {
		return false
	}
	return slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(addr.WithZone("")) })
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
	addr = addr.WithZone("")
	return (addr.Is4() || globalV6.Contains(addr)) && !slices.ContainsFunc(special, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// bracketed is a host as it stands before a port.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
