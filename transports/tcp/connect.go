package tcp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// This file is the configuration of devices that are servers: the host dials them. See dialer.go.

// defaultListen is where the transport listens if its configuration says nothing else.
const defaultListen = ":8123"

// connectTo is a device that the host dials.
type connectTo struct {
	Device string `toml:"device" required:"true" doc:"The name of the device." example:"\"rtu-7\""`
	Addr   string `toml:"addr" required:"true" doc:"The device's address, host:port. A name is resolved for each attempt." example:"\"10.1.2.3:2404\""`
}

// listenAddr returns the address to listen on, or "" if the transport only dials.
func (c *Config) listenAddr() string {
	switch {
	case c.Listen != nil:
		return *c.Listen
	case len(c.Connect) > 0:
		return ""
	}
	return defaultListen
}

// dialed returns the addresses of the devices that the host dials, by their names.
func (c *Config) dialed() map[string]string {
	all := make(map[string]string, len(c.Connect))
	for _, to := range c.Connect {
		all[to.Device] = to.Addr
	}
	return all
}

// canonical returns the function for device.Options.Canonical.
func (c *Config) canonical() func(string) (string, error) {
	if c.identifiedBy() != byAddress {
		return canonicalName
	}
	if len(c.Connect) == 0 {
		return canonicalAddress
	}
	dialed, listens := c.dialed(), c.listenAddr() != ""
	return func(name string) (string, error) {
		if _, ok := dialed[name]; ok {
			return name, nil
		}
		canonical, err := canonicalAddress(name)
		switch _, ok := dialed[canonical]; {
		case ok || err == nil && listens:
			return canonical, nil
		case listens:
			return "", fmt.Errorf("%w: %q is neither an IP address nor a device of connect", device.ErrDevice, name)
		}
		return "", fmt.Errorf("%w: connect has no device %q", device.ErrDevice, name)
	}
}

// validateConnect returns the problems of connect and of the settings that belong to it.
func (c *Config) validateConnect() (problems []error) {
	invalid := func(field, format string, args ...any) {
		problems = append(problems, transports.Invalid(field, format, args...))
	}
	if len(c.Connect) == 0 {
		if c.ConnectTLS != nil {
			invalid("connect_tls", "is only used with connect")
		}
		return problems
	}
	if err := c.Reconnect.Validate(); err != nil {
		problems = append(problems, err)
	}
	if c.MaxConnections > 0 && c.MaxConnections < len(c.Connect) {
		invalid("max_connections", "%d is less than the number of devices in connect, %d", c.MaxConnections, len(c.Connect))
	}
	if c.listenAddr() == "" {
		for field, used := range map[string]bool{
			"tls": c.TLS != nil, "allow_from": len(c.AllowFrom) > 0, "proxy_protocol": c.ProxyProtocol != nil, "max_accept_rate": c.MaxAcceptRate > 0,
		} {
			if used {
				invalid(field, "is only used with listen; for TLS with the devices in connect, write connect_tls")
			}
		}
	}
	devices, addresses := map[string]int{}, map[string]int{}
	for i, to := range c.Connect {
		at := fmt.Sprintf("connect[%d].", i)
		if err := c.checkDialedName(to.Device); err != nil {
			invalid(at+"device", "%v", err)
		}
		if first, ok := devices[to.Device]; ok {
			invalid(at+"device", "%q is the device of connect[%d], too", to.Device, first)
		} else {
			devices[to.Device] = i
		}
		addr, err := dialAddress(to.Addr)
		first, twice := addresses[addr]
		switch {
		case err != nil:
			invalid(at+"addr", "%v", err)
		case twice:
			invalid(at+"addr", "%q is the address of connect[%d], too", to.Addr, first)
		default:
			addresses[addr] = i
		}
	}
	return problems
}

// checkDialedName returns an error if name can't be the name of a device in connect.
func (c *Config) checkDialedName(name string) error {
	if err := device.CheckName(name); err != nil {
		return err
	}
	if canonical, err := canonicalAddress(name); err == nil && canonical != name {
		return fmt.Errorf("write the address %q as %q", name, canonical)
	}
	if c.Protocol == nil || !strings.Contains(name, "/") {
		return nil
	}
	p, err := c.Protocol.Protocol()
	if err != nil {
		return nil // the protocol's own Validate returns the error
	}
	if u, ok := p.(protocol.Units); ok && u.HasUnits() {
		return fmt.Errorf("%q names a unit; write the device that has the connection", name)
	}
	return nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?$`)

// dialAddress checks the form of an address to dial. It returns the one form that equal addresses
// have.
func dialAddress(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		what := "it isn't HOST:PORT"
		if e, ok := errors.AsType[*net.AddrError](err); ok {
			what = e.Err
		}
		return "", fmt.Errorf("%q isn't an address to connect to: %s; write HOST:PORT, such as 10.1.2.3:502", addr, what)
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return "", fmt.Errorf("%q isn't an address to connect to: a port is a number from 1 to 65535", addr)
	}
	ip, notIP := netip.ParseAddr(host)
	last := host[strings.LastIndexByte(strings.TrimSuffix(host, "."), '.')+1:]
	_, notNumber := strconv.Atoi(strings.TrimSuffix(last, "."))
	switch {
	case notIP == nil && ip.IsUnspecified(), host == "":
		return "", fmt.Errorf("%q isn't an address to connect to: name one host", addr)
	case notIP == nil:
		host = ip.Unmap().String()
	case len(host) > 254 || !hostName.MatchString(host) || notNumber == nil:
		return "", fmt.Errorf("%q isn't an address to connect to: %q is neither an IP address nor a host name", addr, host)
	default:
		host = strings.ToLower(strings.TrimSuffix(host, "."))
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
}

// connections returns how many connections the transport wants, or 0 for as many as possible.
func (c *Config) connections() int {
	if c.listenAddr() == "" {
		return cmp.Or(c.MaxConnections, len(c.Connect))
	}
	return c.MaxConnections
}
