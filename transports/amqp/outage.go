package amqp

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
)

// pausesOf returns the backoff of attempts to connect. Each pause is longer by half.
func pausesOf(r transports.Reconnect) backoff.Pauses {
	b := backoff.New(r.InitialInterval, r.MaxInterval)
	b.Multiplier = 1.5
	return b
}

// connectivity logs an outage of the broker once for both connections.
type connectivity struct {
	log *slog.Logger

	mu     sync.Mutex
	outage *outage.Outage
}

// newConnectivity returns a connectivity without an outage.
func newConnectivity(log *slog.Logger) *connectivity {
	return &connectivity{log: log, outage: outage.New(log, "the connection to the broker")}
}

// reportRole records why a connection was lost or wasn't made. A nil err says that the connection
// works. During an outage, a broker that refuses the login is a new cause, and is logged. Other
// errors during an outage count as the same cause.
func (c *connectivity) reportRole(role string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, refused := errors.AsType[*refusal](err); err != nil && !refused && c.outage.Down() {
		err = c.outage.Err()
	}
	c.outage.ReportOf(role, err)
}
