package tcp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/pentrough/pentrough/internal/listen"
)

// network is a range of addresses, written as in 10.0.0.0/8.
type network struct{ netip.Prefix }

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *network) UnmarshalText(text []byte) error {
	if addr, err := netip.ParseAddr(string(text)); err == nil && addr.Zone() == "" {
		return fmt.Errorf("a network has a prefix length; for this one address write %s/%d", addr, addr.BitLen())
	}
	p, err := netip.ParsePrefix(string(text))
	switch {
	case err != nil:
		return fmt.Errorf("it isn't a network such as 10.0.0.0/8 or 2001:db8::/32: %w", err)
	case p.Addr().Is4In6():
		return fmt.Errorf("write the IPv4 network without ::ffff:, such as %s/32", p.Addr().Unmap())
	case p != p.Masked():
		return fmt.Errorf("the address has bits behind its first %d; write %s for the network, or %s/%d for the address", p.Bits(), p.Masked(), p.Addr(), p.Addr().BitLen())
	}
	n.Prefix = p
	return nil
}

func prefixes(networks []network) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range networks {
		all = append(all, n.Prefix)
	}
	return all
}

type perAddress struct {
	Connections int           `toml:"connections" doc:"Most connections of one address at a time. A further one displaces the oldest whose device isn't known yet; without such a connection it is refused. 0 means no limit." min:"0" example:"100"`
	Rate        int           `toml:"rate" doc:"Connections a second of one address; as many may come at once. 0 means no limit." min:"0" example:"20"`
	Refusals    int           `toml:"refusals" doc:"An address is banned after this many refusals in a minute that are its own fault: no valid first frame, an unknown device, a missing or wrong token, a protocol error, or a PROXY header that it may not send. 0 means never." min:"0" example:"20"`
	Ban         time.Duration `toml:"ban" doc:"How long an address is banned. The host closes new connections of the address. Its sessions stay." min:"0s" example:"\"1h\""`
}

// limits returns the limits of the listener. share is its share of the file descriptors.
func (c *Config) limits(share int) listen.Limits {
	return listen.Limits{
		Max: c.MaxConnections, Share: share, Unidentified: c.MaxUnidentified,
		AllowFrom: prefixes(c.AllowFrom), Balancers: c.balancers(), AcceptRate: c.MaxAcceptRate,
		PerAddress: listen.AddressLimits(c.PerAddress),
	}
}
