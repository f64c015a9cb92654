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

// place is a host or a network to which calls may go.
type place struct {
	// name is a host's name; empty: the place has only networks.
	name string
	// port is the only port that calls may go to; empty: any port.
	port string
	// networks are the addresses that calls may go to even if they aren't public. zone is the IPv6
	// zone that they must have; empty: any.
	networks []netip.Prefix
	zone     string
}

// loopback has the networks of the name localhost.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// readPlace parses an entry of allow: a name or an address, with or without a port, or a network.
func readPlace(entry string) (place, error) {
	wrong := fmt.Errorf("%q is neither a host (a name or address, with or without a port) nor a network such as \"10.0.0.0/8\"", entry)
	if network, err := netip.ParsePrefix(entry); err == nil {
		return place{networks: []netip.Prefix{network.Masked()}}, nil
	}
	if addr, err := netip.ParseAddr(entry); err == nil && !strings.ContainsFunc(addr.Zone(), isNotInName) {
		return newPlace(entry, ""), nil
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
		if addr, err := netip.ParseAddr(host); err == nil && !strings.ContainsFunc(addr.Zone(), isNotInName) {
			return newPlace(host, port), nil
		}
	}
	if canonical(host) == "" || strings.ContainsFunc(host, isNotInName) {
		return place{}, wrong
	}
	return newPlace(host, port), nil
}

func isNotInName(r rune) bool {
	return r != '.' && r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r < 0x80
}

func newPlace(host, port string) place {
	p := place{name: canonical(host), port: port}
	if addr, err := netip.ParseAddr(p.name); err == nil {
		p.name, p.networks, p.zone = "", []netip.Prefix{netip.PrefixFrom(addr.WithZone(""), addr.BitLen())}, addr.Zone()
	} else if p.name == "localhost" {
		p.networks = loopback
	}
	return p
}

// canonical returns the form of a host's name in which names are compared.
func canonical(host string) string {
	host = strings.TrimSuffix(host, ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		// An IPv4 address written as IPv6 is IPv4. A zone keeps its case.
		return addr.Unmap().String()
	}
	return strings.ToLower(host)
}

// portOf returns the port in a URL, or the default port of its scheme.
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

// newPlaces returns the places of a configuration. They include the host of the URL on any port,
// so that it may redirect to itself. If that host is an address that isn't public, calls may go
// only to the port in the URL.
func newPlaces(target *url.URL, allow []string) (places, error) {
	own, address := place{name: canonical(target.Hostname())}, newPlace(target.Hostname(), portOf(target))
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

// allowsRedirect reports whether a redirect may lead to the host of a URL. It looks only at the
// host's name; checkAddress checks the address of that name later.
func (p places) allowsRedirect(u *url.URL) bool {
	host, port := canonical(u.Hostname()), portOf(u)
	addr, err := netip.ParseAddr(host)
	return slices.ContainsFunc(p.all, func(q place) bool {
		return (q.port == "" || q.port == port) && (q.name == host || q.name == "" && err == nil && q.contains(addr))
	})
}

// checkAddress returns an error if no connection may be made to an address with a port.
func (p places) checkAddress(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return &forbidden{fmt.Sprintf("%q is no address", address)}
	}
	addr, port := to.Addr().Unmap(), strconv.Itoa(int(to.Port()))
	if isPublic(addr) || slices.ContainsFunc(p.all, func(q place) bool { return (q.port == "" || q.port == port) && q.contains(addr) }) {
		return nil
	}
	return &forbidden{fmt.Sprintf("%s is not a public address; allow it with allow = [\"%s\"]", addr, addr)}
}

func (p place) contains(addr netip.Addr) bool {
	if p.zone != "" && p.zone != addr.Zone() {
		return false
	}
	return slices.ContainsFunc(p.networks, func(n netip.Prefix) bool { return n.Contains(addr.WithZone("")) })
}

// forbidden is the error for an address that isn't allowed.
type forbidden struct{ why string }

func (f *forbidden) Error() string { return f.why }

// special has the networks of IANA's special-purpose registries that aren't part of the Internet,
// or that contain IPv4 addresses. Of IPv6 it has only those inside globalV6.
var special = parsePrefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

// globalV6 is the part of IPv6 from which public addresses are assigned.
var globalV6 = netip.MustParsePrefix("2000::/3")

func parsePrefixes(all ...string) []netip.Prefix {
	var parsed []netip.Prefix
	for _, p := range all {
		parsed = append(parsed, netip.MustParsePrefix(p))
	}
	return parsed
}

// isPublic reports whether an address is a public one of the Internet.
func isPublic(addr netip.Addr) bool {
	addr = addr.WithZone("")
	return (addr.Is4() || globalV6.Contains(addr)) && !slices.ContainsFunc(special, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// bracketed returns a host in the form that can be followed by a port.
func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}
