package configs

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
)

// listener is an address that the host will bind.
type listener struct {
	path, addr string
	host, port string
}

// listeners refuses that two parts of the host bind one port.
func (c *checker) listeners() {
	var all []listener
	if addr := c.file.host.Admin; addr != "" {
		if l, err := newListener("host.admin", addr); err != nil {
			c.fail("host.admin", err.Error(), `host:port, such as "127.0.0.1:8222"; "" turns it off`, "")
		} else {
			all = append(all, l)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.file.transports)) {
		binder, ok := c.file.transports[name].config.(transports.Binder)
		if !ok {
			continue
		}
		binds := binder.Binds()
		for _, key := range slices.Sorted(maps.Keys(binds)) {
			path := plugin.Join("transport", name) + "." + key
			l, err := newListener(path, binds[key])
			if err == nil {
				all = append(all, l)
			} else if _, _, shapeless := net.SplitHostPort(binds[key]); shapeless == nil {
				// An address of the wrong shape is the transport's own to tell, in Validate.
				c.fail(path, err.Error(), "", "")
			}
		}
	}
	for i, l := range all {
		for _, earlier := range all[:i] {
			if l.conflicts(earlier) {
				c.fail(l.path, fmt.Sprintf("%q and %q of %s are one port; give one of them another", l.addr, earlier.addr, earlier.path), "", "")
				break
			}
		}
	}
}

func newListener(path, addr string) (listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return listener{}, fmt.Errorf("%q is no address to listen on", addr)
	}
	if n, err := strconv.Atoi(port); err == nil {
		if n < 0 || n > 65535 {
			return listener{}, fmt.Errorf("%q is no address to listen on: ports go up to 65535", addr)
		}
		// 08123 is the port 8123.
		port = strconv.Itoa(n)
	}
	return listener{path: path, addr: addr, host: host, port: port}, nil
}

// conflicts says whether both can't be bound at once. Port 0 is a free port each time.
func (l listener) conflicts(o listener) bool {
	if l.port != o.port || l.port == "0" || l.port == "" {
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

// addresses are what a host to listen on stands for; none for a name that only a resolver knows.
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

// overlap says whether one address is a part of the other. "::" takes IPv4 too, 0.0.0.0 takes that alone.
func overlap(a, b netip.Addr) bool {
	covers := func(wide, narrow netip.Addr) bool {
		return wide == netip.IPv6Unspecified() || wide == netip.IPv4Unspecified() && narrow.Is4()
	}
	return a == b || covers(a, b) || covers(b, a)
}
