package tcp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/pentrough/pentrough/internal/pattern"
	"github.com/pentrough/pentrough/transports/codec"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// protocol builds the protocol of the sessions.
func (c *Config) protocol() (protocol.Protocol, error) {
	if c.Protocol != nil {
		p, err := c.Protocol.Protocol()
		if err != nil {
			return nil, fmt.Errorf("building the protocol: %w", err)
		}
		return p, nil
	}
	framing, err := c.codec().New()
	if err != nil {
		return nil, fmt.Errorf("building the framing: %w", err)
	}
	return protocol.Plain(framing), nil
}

// codec returns the framing of connections without a protocol.
func (c *Config) codec() codec.Config { return cmp.Or(c.Framing, codec.Named("line")) }

// opening returns the protocol of connections whose device isn't known yet.
func (c *Config) opening(p protocol.Protocol) (protocol.Protocol, error) {
	if c.identifiedBy() != byFirstFrame {
		return p, nil
	}
	f, err := compilePattern(c.Identity.Pattern)
	if err != nil {
		return nil, err
	}
	return introduction{Protocol: p, firstFrame: f, data: c.Identity.Data}, nil
}

// introduction is a plain protocol whose first frame names the device.
type introduction struct {
	protocol.Protocol
	firstFrame
	data bool // the first frame is data, too
}

func (p introduction) Decode(_ *protocol.State, frame []byte, v *protocol.Verdict) (err error) {
	v.Device, v.Token, err = p.deviceName(frame)
	v.Answers, v.NoData = protocol.No, !p.data
	return err
}

// identifiedBy returns what identifies the device of a connection.
func (c *Config) identifiedBy() string {
	switch {
	case c.Identity.By != "":
		return c.Identity.By
	case c.Protocol != nil:
		return byProtocol
	default:
		return byAddress
	}
}

// namedByFrames reports whether a frame of a session that names another device matters.
func (c *Config) namedByFrames() bool {
	return c.identifiedBy() == byProtocol || c.identifiedBy() == byCertificate
}

// firstFrame finds the device's name in a first frame.
type firstFrame struct {
	pattern *regexp.Regexp // nil: the whole frame is the name
	group   int
	token   int // the group of the token, if it is greater than 0
}

var errNoMatch = errors.New("it doesn't match identity.pattern")

func compilePattern(text string) (firstFrame, error) {
	if text == "" {
		return firstFrame{}, nil
	}
	re, _, err := pattern.Compile(text)
	if err != nil {
		return firstFrame{}, err
	}
	h := firstFrame{pattern: re, token: re.SubexpIndex(tokenGroup)}
	switch named := re.SubexpIndex("device"); {
	case named > 0:
		h.group = named
	case h.token > 0:
		return firstFrame{}, errors.New("has a group named token, so another one must be named device, as in (?P<device>...)")
	case re.NumSubexp() == 1:
		h.group = 1
	case re.NumSubexp() > 1:
		return firstFrame{}, errors.New("has several groups: name one of them device, as in (?P<device>...), or write the others as (?:...)")
	}
	return h, nil
}

// deviceName returns the name of the device that sent the frame, and its token.
func (h firstFrame) deviceName(frame []byte) (string, []byte, error) {
	name, token := frame, []byte(nil)
	if h.pattern != nil {
		match := h.pattern.FindSubmatch(frame)
		if match == nil {
			return "", nil, fmt.Errorf("%w %q", errNoMatch, h.pattern)
		}
		if name = match[h.group]; h.group == 0 {
			name = frame
		}
		if h.token > 0 {
			token = match[h.token]
		}
	}
	if err := device.CheckName(string(name)); err != nil {
		return "", nil, err
	}
	return string(name), token, nil
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
