package device

import (
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
)

// StandIn is what a fake of a transport needs to treat its devices as the transport does.
type StandIn struct {
	Registry *Registry
	Framing  codec.Framing
	// IdleTimeout is after what time without a word a device is disconnected; 0 is never.
	IdleTimeout time.Duration
	// Remote returns the address of which a device's events tell.
	Remote func(device string) string
	// KnownOnly says that only devices of the inventory are taken.
	KnownOnly bool
}

// StandInMaker is implemented by configurations of transports that hold devices and can be replaced by a fake, as tests of a configuration do.
type StandInMaker interface {
	// StandIn does no I/O.
	StandIn(env transports.Env) (*StandIn, error)
}
