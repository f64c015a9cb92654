package tcp

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/pentrough/pentrough/internal/pattern"
	"github.com/pentrough/pentrough/transports/device"
)

// hello finds the device's name in a first frame.
type hello struct {
	pattern *regexp.Regexp // nil: the whole frame
	group   int
}

func compile(text string) (hello, error) {
	if text == "" {
		return hello{}, nil
	}
	re, _, err := pattern.Compile(text)
	if err != nil {
		return hello{}, err
	}
	h := hello{pattern: re}
	switch named := re.SubexpIndex("device"); {
	case named > 0:
		h.group = named
	case re.NumSubexp() == 1:
		h.group = 1
	case re.NumSubexp() > 1:
		return hello{}, errors.New("has several groups: name one of them device, as in (?P<device>...), or write the others as (?:...)")
	}
	return h, nil
}

// device returns whose first frame it is.
func (h hello) device(frame []byte) (string, error) {
	name := frame
	if h.pattern != nil {
		match := h.pattern.FindSubmatch(frame)
		if match == nil {
			return "", fmt.Errorf("the first frame %.100q doesn't match identity.pattern %q", frame, h.pattern)
		}
		if name = match[h.group]; h.group == 0 {
			name = frame
		}
	}
	if err := device.CheckName(string(name)); err != nil {
		return "", fmt.Errorf("reading the first frame %.100q: %w", frame, err)
	}
	return string(name), nil
}

// peerName returns the device of a peer's address: IPv4 as IPv4 however it came in, without the
// port, and with the zone, as a link-local address is one device in each of them.
func peerName(addr netip.AddrPort) string { return addr.Addr().Unmap().String() }

// canonicalAddress is device.Devices.Canonical for devices that are addresses.
func canonicalAddress(name string) (string, error) {
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return "", fmt.Errorf("%w: %q is not an IP address", device.ErrDevice, name)
	}
	if addr.Zone() != "" { // any text
		if err := device.CheckName(name); err != nil {
			return "", err
		}
	}
	var room [64]byte // more than the longest text with a zone that Linux has
	canonical := addr.Unmap().AppendTo(room[:0])
	if string(canonical) == name {
		return name, nil
	}
	return string(canonical), nil
}

// canonicalName is device.Devices.Canonical for devices that name themselves.
func canonicalName(name string) (string, error) { return name, device.CheckName(name) }
