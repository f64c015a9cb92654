package amqp

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// outage says once that the broker is gone and once that it is back, however many connections there are and however often
// each is tried.
type outage struct {
	log *slog.Logger
	now func() time.Time

	mu    sync.Mutex
	down  map[string]bool
	since time.Time
	// said is what the log has been told of this outage; "" is nothing.
	said string
}

func newOutage(log *slog.Logger, now func() time.Time) *outage {
	return &outage{log: log, now: now, down: map[string]bool{}}
}

// lost records that a connection is gone, or that an attempt to make it didn't work.
func (o *outage) lost(role string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.down) == 0 {
		o.since = o.now()
	}
	o.down[role] = true
	// A broker that answers but refuses is news during an outage; the many faces of a dead peer aren't.
	refused, ok := errors.AsType[*refusal](err)
	switch {
	case o.said == "":
		o.log.Warn("no connection to the broker, trying again until there is one", "err", err)
		o.said = "lost"
		if ok {
			o.said = refused.Error()
		}
	case ok && o.said != refused.Error():
		o.log.Warn("the broker refuses the connection, trying again", "err", err)
		o.said = refused.Error()
	}
}

// up records that a connection works.
func (o *outage) up(role string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.down, role)
	if len(o.down) == 0 && o.said != "" {
		o.log.Info("connected to the broker again", "after", o.now().Sub(o.since).Round(time.Millisecond))
		o.said = ""
	}
}
