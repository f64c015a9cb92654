package tcp

import (
	"fmt"
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
	framing, err := c.Framing.New()
	if err != nil {
		return nil, fmt.Errorf("building the framing: %w", err)
	}
	registry, err := c.registry(framing, env)
	if err != nil {
		return nil, err
	}
	return &device.StandIn{
		Registry: registry, Framing: framing, IdleTimeout: c.IdleTimeout, KnownOnly: c.Allow == allowKnown,
		Remote: func(name string) string {
			if c.Identity.By == byAddress {
				return net.JoinHostPort(name, fakePort)
			}
			return net.JoinHostPort(fakeAddr, fakePort)
		},
	}, nil
}
