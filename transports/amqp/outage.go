package amqp

import (
	"errors"
	"log/slog"
	"sync"

	"github.com/cenkalti/backoff/v5"

	pauses "github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/outage"
)

// pauses returns the pauses between attempts.
func (r Reconnect) pauses() backoff.ExponentialBackOff {
	b := pauses.New(r.InitialInterval, r.MaxInterval)
	b.Multiplier = 1.5
	return b
}

// connectivity is the outage of the broker, which all connections share.
type connectivity struct {
	log *slog.Logger

	mu     sync.Mutex
	outage *outage.Outage
}

func newConnectivity(log *slog.Logger) *connectivity {
	return &connectivity{log: log, outage: outage.New(log, "the connection to the broker")}
}

// report takes why a connection is gone or wasn't made; nil says that it works. A broker that
// answers but refuses is a new cause during an outage; the many errors of a dead peer are one.
func (c *connectivity) reportRole(role string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, refused := errors.AsType[*refusal](err); err != nil && !refused && c.outage.Down() {
		err = c.outage.Err()
	}
	c.outage.ReportOf(role, err)
}
