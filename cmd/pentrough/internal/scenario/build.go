package scenario

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// build creates the host and its fakes. The returned function closes what the host used.
func (w *world) build(log *slog.Logger) (ends func(), err error) {
	c := w.setup.Config.Router
	c.Logger = log
	w.hooks = newHooks(w.record)
	c.HTTP = w.hooks
	c.Pipelines = slices.Clone(c.Pipelines)
	for i, p := range c.Pipelines {
		if maker, ok := p.Handler.Config.(handlers.StandInMaker); ok {
			c.Pipelines[i].Handler.Config = maker.StandIn()
		}
	}
	c.Transports, err = w.fakes()
	if err != nil {
		return func() {}, err
	}
	remembered := ledger.New()
	if w.setup.Config.Store.Type != configs.MemoryStore {
		remembered = ledger.Open(forgetful{}, log)
		<-remembered.Opened()
		c.DeadLetters = &letters{w.record}
	}
	c.Ledger = remembered
	ends = func() { _ = remembered.Close(context.Background()) } // its store keeps nothing
	if w.setup.Inventory != nil {
		if c.Inventory, err = w.setup.Inventory(log); err != nil {
			return ends, err
		}
	}
	w.host, err = router.New(c)
	return ends, err
}

// fakes returns the transports of the test.
func (w *world) fakes() ([]router.Transport, error) {
	w.topics, w.holders = map[string]*topics{}, map[string]*holder{}
	var all []router.Transport
	for _, t := range w.setup.Config.Router.Transports {
		if maker, ok := t.Config.(device.StandInMaker); ok {
			w.holders[t.Name] = &holder{Config: t.Config, maker: maker, record: w.record}
			t.Config = w.holders[t.Name]
		} else if described := describe(t); described.Devices {
			return nil, fmt.Errorf("transport %s: a test can't play devices of type %s, whose configuration is no device.StandInMaker", t.Name, t.Type)
		} else if !described.SelfContained {
			w.topics[t.Name] = newTopics(t.Config, t.Name, w.record)
			t.Config = w.topics[t.Name]
		}
		all = append(all, t)
	}
	return all, nil
}

// describe returns the properties of a transport's plugin.
func describe(t router.Transport) transports.Plugin {
	kind, _ := plugin.Registered().Kind("transport")
	info, _ := kind.Lookup(t.Type)
	described, _ := info.Extra.(transports.Plugin)
	return described
}

// tap records what is published to topics of real transports, if the test expects something of
// them.
func (w *world) tap(ctx context.Context, taps *sync.WaitGroup) error {
	for _, s := range w.named() {
		if s.kind != "" {
			continue
		}
		name, _, err := transports.TopicRef(s.name).Split()
		if err != nil {
			return err
		}
		if w.topics[name] != nil {
			continue
		}
		messages, err := w.host.Tap(ctx, transports.TopicRef(s.name))
		if err != nil {
			return fmt.Errorf("looking at %s: %w", s.name, err)
		}
		taps.Go(func() {
			for msg := range messages {
				w.record.message(s.name, msg)
			}
		})
	}
	return nil
}
