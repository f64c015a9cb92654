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

// lacks says that a handler needs something that only a host has.
func lacks(what string) error {
	return fmt.Errorf("%s, which only a handler that is compiled into the host has: see `pentrough build`", what)
}

// needs are what a configuration can't do without and a process doesn't have.
func needs(config any, references []plugin.Ref) error {
	var errs []error
	for _, r := range references {
		if r.To == "devices" {
			errs = append(errs, handlers.Invalid(r.Path, "%v", lacks("the devices "+r.Shown+" are wanted")))
		}
	}
	if u, ok := config.(handlers.LedgerUser); ok && u.NeedsLedger() != "" {
		errs = append(errs, lacks(u.NeedsLedger()+" needs a ledger"))
	}
	if u, ok := config.(handlers.StoreUser); ok && u.NeedsStore() != "" {
		errs = append(errs, lacks(u.NeedsStore()+" needs the host's store"))
	}
	return errors.Join(errs...)
}

// env is what a process has of what a host lends.
func (s *session) env() handlers.Env {
	return handlers.Env{
		Pipeline: s.host.Pipeline, Host: s.host.Host.Name, Logger: s.logger, Now: time.Now, Registerer: prometheus.NewRegistry(),
		Publisher: func(ref handlers.TopicRef) (message.Publisher, error) {
			return noPublisher{ref}, nil
		},
		Devices: func(ref handlers.DevicesRef) (device.Devices, error) {
			return nil, lacks(fmt.Sprintf("the devices %q are wanted", string(ref)))
		},
		Inventory: func(handlers.DevicesRef) device.Inventory { return nil },
	}
}

// noPublisher stands for a topic, which handlers ask for so that it is prepared: what they produce may go there. What no input owns can't.
type noPublisher struct{ ref handlers.TopicRef }

func (p noPublisher) Publish(string, ...*message.Message) error {
	return handlers.Permanent(lacks(fmt.Sprintf("publishing to %q beside what a message produces is wanted", string(p.ref))))
}

func (noPublisher) Close() error { return nil }

// build makes the handler of a configuration.
func (s *session) build(config handlers.Config) (handlers.Handler, error) {
	handler, err := config.New(s.env())
	if err != nil {
		return nil, err
	}
	if _, ok := handler.(handlers.Holder); ok {
		return nil, lacks("it holds messages in the ledger")
	}
	if _, ok := handler.(handlers.Describer); ok {
		s.logger.Debug("the handler describes its messages itself; for a process the pipeline's key says which of them stay in order")
	}
	return handler, nil
}
