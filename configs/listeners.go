package configs

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
)

// listener is an address at which the host will listen.
type listener struct {
	path, addr string
	host, port string
}

// listeners refuses two listeners at the same port.
func (c *checker) listeners() {
	var all []listener
	if addr := c.file.host.Admin; addr != "" {
		if l, err := newListener("host.admin", addr); err != nil {
			c.fail("host.admin", err.Error()+"; an empty string turns the listener off", "", "")
		} else {
			all = append(all, l)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.file.transports)) {
		binds := transports.NeedsOf(c.file.transports[name].config).Binds
		for _, key := range slices.Sorted(maps.Keys(binds)) {
			path := plugin.Join("transport", name) + "." + key
			l, err := newListener(path, binds[key])
			if err == nil {
				all = append(all, l)
			} else if transports.CheckListen(binds[key]) == nil {
				// The transport reports an address of the wrong form itself, in Validate.
				c.fail(path, err.Error(), "", "")
			}
		}
	}
	for i, l := range all {
		for _, earlier := range all[:i] {
			if l.conflicts(earlier) {
				c.fail(l.path, fmt.Sprintf("%q and %q of %s are the same port; change one of them", l.addr, earlier.addr, earlier.path), "", "")
				break
			}
		}
	}
}

// newListener parses an address to listen at. Problems that only a resolver or the machine can
// find are reported when the host starts.
func newListener(path, addr string) (listener, error) {
	if err := transports.CheckListen(addr); err != nil {
		return listener{}, err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return listener{}, err
	}
	if host == "*" {
		return listener{}, fmt.Errorf("%q isn't an address to listen at; for all addresses of the machine, write %q", addr, ":"+port)
	}
	if err := checkHost(host); err != nil {
		return listener{}, fmt.Errorf("%q isn't an address to listen at: %w", addr, err)
	}
	number, err := portNumber(port)
	if err != nil {
		return listener{}, fmt.Errorf("%q isn't an address to listen at: %w", addr, err)
	}
	return listener{path: path, addr: addr, host: host, port: strconv.Itoa(number)}, nil
}

// portNumber returns the number of a port. The port is a number, possibly with leading zeros
// (08123 is 8123), or the name of a service.
func portNumber(port string) (int, error) {
	if n, err := strconv.Atoi(port); err == nil {
		if n < 0 || n > 65535 {
			return 0, errors.New("a port is a number from 0 to 65535")
		}
		return n, nil
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return 0, fmt.Errorf("%q is neither a number nor the name of a service", port)
	}
	return n, nil
}

var hostLabel = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)

// checkHost refuses a host that is neither an IP address nor a possible host name.
func checkHost(host string) error {
	if host == "" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	for _, label := range labels {
		if len(host) > 254 || !hostLabel.MatchString(label) {
			return fmt.Errorf("%q is neither an IP address nor a host name", host)
		}
	}
	top := labels[len(labels)-1]
	if _, err := strconv.Atoi(top); err == nil {
		return fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	// RFC 6761: names below "invalid" never have an address.
	if strings.EqualFold(top, "invalid") {
		return fmt.Errorf("names that end in %q never have an address", top)
	}
	return nil
}

// conflicts reports whether only one of the addresses can be used at a time. Addresses with port 0
// never conflict: the system chooses a free port for each.
func (l listener) conflicts(o listener) bool {
	if l.port != o.port || l.port == "0" {
		return false
	}
	for _, a := range addresses(l.host) {
		for _, b := range addresses(o.host) {
			if overlap(a, b) {
				return true
			}
		}
	}
	return len(addresses(l.host)) == 0 && l.host == o.host
}

// addresses returns the IP addresses of a host to listen at. It returns none for a name that only
// a resolver knows.
func addresses(host string) []netip.Addr {
	switch host {
	case "":
		return []netip.Addr{netip.IPv6Unspecified()}
	case "localhost":
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return nil
	}
	return []netip.Addr{a.Unmap()}
}

// overlap reports whether one address includes the other. "::" includes IPv4; 0.0.0.0 includes
// only IPv4.
func overlap(a, b netip.Addr) bool {
	covers := func(wide, narrow netip.Addr) bool {
		return wide == netip.IPv6Unspecified() || wide == netip.IPv4Unspecified() && narrow.Is4()
	}
	return a == b || covers(a, b) || covers(b, a)
}
