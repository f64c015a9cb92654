package tcp

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/pentrough/pentrough/internal/pattern"
	"github.com/pentrough/pentrough/transports/device"
)

// firstFrame finds the device's name in a first frame.
type firstFrame struct {
	pattern *regexp.Regexp // nil: the whole frame is the name
	group   int
}

func compilePattern(text string) (firstFrame, error) {
	if text == "" {
		return firstFrame{}, nil
	}
	re, _, err := pattern.Compile(text)
	if err != nil {
		return firstFrame{}, err
	}
	h := firstFrame{pattern: re}
	switch named := re.SubexpIndex("device"); {
	case named > 0:
		h.group = named
	case re.NumSubexp() == 1:
		h.group = 1
	case re.NumSubexp() > 1:
		return firstFrame{}, errors.New("has several groups: name one of them device, as in (?P<device>...), or write the others as (?:...)")
	}
	return h, nil
}

// deviceName returns the name of the device that sent the frame.
func (h firstFrame) deviceName(frame []byte) (string, error) {
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

// peerName returns the device's name for a peer's address. The name has no port, and IPv4 is
// always written as IPv4. It has the zone, because a link-local address is another device in each
// zone.
func peerName(addr netip.AddrPort) string { return addr.Addr().Unmap().String() }

// canonicalAddress implements device.Devices.Canonical for devices that are identified by address.
func canonicalAddress(name string) (string, error) {
	addr, err := netip.ParseAddr(name)
	if err != nil {
		return "", fmt.Errorf("%w: %q is not an IP address", device.ErrDevice, name)
	}
	if addr.Zone() != "" { // a zone can be any text
		if err := device.CheckName(name); err != nil {
			return "", err
		}
	}
	var room [64]byte // longer than any address with a zone on Linux
	canonical := addr.Unmap().AppendTo(room[:0])
	if string(canonical) == name {
		return name, nil
	}
	return string(canonical), nil
}

// canonicalName implements device.Devices.Canonical for devices that are identified by their first
// frame.
func canonicalName(name string) (string, error) { return name, device.CheckName(name) }
