package device

import (
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/protocol"
)

// StandIn has the parts of a transport that a fake needs. With them the fake treats devices as the
// transport does.
type StandIn struct {
	Registry *Registry
	Protocol protocol.Protocol
	// Opening is the protocol of connections whose device isn't known yet. It is nil if a frame
	// never names the device.
	Opening protocol.Protocol
	// Configured reports whether the configuration names the device of a connection, so that no
	// frame has to do so.
	Configured func(device string) bool
	// Partial means that the bytes of a frame whose end never came are published.
	Partial bool
	// IdleTimeout is the time after which a silent device is disconnected; 0 means never.
	IdleTimeout time.Duration
	// Remote returns the address that a device's events have as remote_addr.
	Remote func(device string) string
	// KnownOnly means that only devices of the inventory get a session.
	KnownOnly bool
}

// StandInMaker is implemented by the configuration of a transport that connects devices, if a fake
// can replace the transport. `pentrough test` uses such fakes.
type StandInMaker interface {
	// StandIn returns the parts. It does no I/O.
	StandIn(env transports.Env) (*StandIn, error)
}
