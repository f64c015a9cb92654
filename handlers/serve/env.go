package serve

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports/device"
)

// hostOnly makes the error for a handler that needs something that only a host has.
func hostOnly(what string) error {
	return fmt.Errorf("%s; this works only in a handler that is compiled into the host: see `pentrough build`", what)
}

// checkNeeds returns an error if a configuration needs something that a process doesn't have.
func checkNeeds(config any, references []plugin.Ref) error {
	var errs []error
	for _, r := range references {
		if r.To == "devices" {
			errs = append(errs, handlers.Invalid(r.Path, "%v", hostOnly("the handler needs the devices "+r.Shown)))
		}
	}
	if u, ok := config.(handlers.LedgerUser); ok && u.NeedsLedger() != "" {
		errs = append(errs, hostOnly(u.NeedsLedger()+" needs a ledger"))
	}
	if u, ok := config.(handlers.StoreUser); ok && u.NeedsStore() != "" {
		errs = append(errs, hostOnly(u.NeedsStore()+" needs the host's store"))
	}
	return errors.Join(errs...)
}

// env returns the environment of the handler, as far as a process can have it.
func (s *session) env() handlers.Env {
	return handlers.Env{
		Pipeline: s.host.Pipeline, Host: s.host.Host.Name, Logger: s.logger, Now: time.Now, Registerer: prometheus.NewRegistry(),
		Publisher: func(ref handlers.TopicRef) (message.Publisher, error) {
			return noPublisher{ref}, nil
		},
		Devices: func(ref handlers.DevicesRef) (device.Devices, error) {
			return nil, hostOnly(fmt.Sprintf("the handler needs the devices %q", string(ref)))
		},
		Inventory: func(handlers.DevicesRef) device.Inventory { return nil },
	}
}

// noPublisher is the publisher of a topic. A handler may ask for it, because messages that it
// produces may go to that topic. Publishing anything else fails.
type noPublisher struct{ ref handlers.TopicRef }

func (p noPublisher) Publish(string, ...*message.Message) error {
	return handlers.Permanent(hostOnly(fmt.Sprintf("the handler publishes to %q itself", string(p.ref))))
}

func (noPublisher) Close() error { return nil }

// build makes the handler from its configuration.
func (s *session) build(config handlers.Config) (handlers.Handler, error) {
	handler, err := config.New(s.env())
	if err != nil {
		return nil, err
	}
	if _, ok := handler.(handlers.Holder); ok {
		return nil, hostOnly("the handler holds messages in the ledger")
	}
	if _, ok := handler.(handlers.Describer); ok {
		s.logger.Debug("the handler describes its messages, but for a process the pipeline's key decides which messages stay in order")
	}
	return handler, nil
}
