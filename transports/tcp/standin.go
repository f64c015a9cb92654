package tcp

import (
	"net"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

var _ device.StandInMaker = (*Config)(nil)

// fakePort and fakeAddr make the address of a fake's device. The IP address is reserved for
// documentation (RFC 5737).
const (
	fakePort = "40000"
	fakeAddr = "192.0.2.1"
)

// StandIn implements device.StandInMaker.
func (c *Config) StandIn(env transports.Env) (*device.StandIn, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p, err := c.protocol()
	if err != nil {
		return nil, err
	}
	opening, err := c.opening(p)
	if err != nil {
		return nil, err
	}
	if by := c.identifiedBy(); by == byAddress || by == byCertificate {
		opening = nil // no frame names the device
	}
	registry, err := c.registry(p, env)
	if err != nil {
		return nil, err
	}
	dialed := c.dialed()
	return &device.StandIn{
		Registry: registry, Protocol: p, Opening: opening, Partial: c.Data.Partial, IdleTimeout: c.IdleTimeout, KnownOnly: c.inventoryUser() != "",
		Configured: func(name string) bool { return dialed[name] != "" && c.identifiedBy() != byFirstFrame },
		Remote: func(name string) string {
			if addr := dialed[name]; addr != "" {
				return addr
			}
			if c.identifiedBy() == byAddress {
				return net.JoinHostPort(name, fakePort)
			}
			return net.JoinHostPort(fakeAddr, fakePort)
		},
	}, nil
}
