package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// Host runs the pipelines of one configuration.
type Host struct {
	config     Config
	log        *slog.Logger
	metrics    *metrics
	transports map[string]*transport
	order      []*transport // as configured, those that hold devices last
	inventory  map[transports.DevicesRef]device.Inventory
	pipelines  []*pipeline
}

type transport struct {
	transports.Transport
	name   string
	config transports.Config
}

// Health is the state of one part of the host.
type Health struct {
	// Name is "transport NAME", "pipeline NAME" or "store".
	Name string
	// Part is what of it.
	Part string
	// Err is nil if it works, otherwise why it doesn't.
	Err error
	// Note is what people should know of a part that works.
	Note string
}

// New builds a host. It does no I/O; all that doesn't fit is in the error.
func New(c Config) (*Host, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	h := &Host{config: c, log: c.Logger, transports: map[string]*transport{}}
	var err error
	if h.metrics, err = newMetrics(c.Registerer, c.Memory); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	var errs []error
	var holders []*transport
	consumed := consumedTopics(c)
	for _, t := range c.Transports {
		built, err := t.Config.New(transports.Env{
			Name: t.Name, Host: c.Name, Connections: t.Connections, Consumed: consumed, Logger: h.log.With("transport", t.Name), Now: c.Now, Memory: c.Memory,
			Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"transport": t.Name}, c.Registerer),
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("building transport %s: %w", t.Name, err))
			continue
		}
		it := &transport{built, t.Name, t.Config}
		h.transports[t.Name] = it
		if _, ok := built.(device.Provider); ok {
			holders = append(holders, it)
		} else {
			h.order = append(h.order, it)
		}
	}
	h.order = append(h.order, holders...)
	errs = append(errs, h.takeInventory(holders)...)
	if len(errs) == 0 {
		for _, p := range c.Pipelines {
			built, err := newPipeline(p, h)
			if err != nil {
				errs = append(errs, fmt.Errorf("building pipeline %s: %w", p.Name, err))
				continue
			}
			h.pipelines = append(h.pipelines, built)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return h, nil
}

// consumedTopics returns what transports say of the topics that pipelines consume. What is wrong
// with a topic is an error of its pipeline.
func consumedTopics(c Config) []transports.Topic {
	var all []transports.Topic
	for _, p := range c.Pipelines {
		name, topic, err := p.From.Split()
		at := slices.IndexFunc(c.Transports, func(t Transport) bool { return t.Name == name })
		if err != nil || at < 0 {
			continue
		}
		if t, err := c.Transports[at].Config.Topic(topic, transports.Consume); err == nil {
			all = append(all, t)
		}
	}
	return all
}

func (h *Host) transportsByName() map[string]transports.Transport {
	all := make(map[string]transports.Transport, len(h.transports))
	for name, t := range h.transports {
		all[name] = t.Transport
	}
	return all
}

// devices returns the devices of a transport.
func (h *Host) devicesOf(ref transports.DevicesRef) (device.Devices, error) {
	t, ok := h.transports[string(ref)]
	if !ok {
		return nil, fmt.Errorf("there is no transport %q", ref)
	}
	p, ok := t.Transport.(device.Provider)
	if !ok {
		return nil, fmt.Errorf("transport %q holds no devices", ref)
	}
	return p.Devices(), nil
}

// Start subscribes every pipeline, then starts the transports, those with devices last, so that
// nothing they say is missed. When it returns an error everything is closed again.
func (h *Host) Start(ctx context.Context) error {
	err := h.start(ctx)
	if err != nil {
		err = errors.Join(err, h.close(ctx))
	}
	return err
}

func (h *Host) start(ctx context.Context) error {
	for _, p := range h.pipelines {
		if err := p.start(ctx); err != nil {
			return err
		}
	}
	for _, t := range h.order {
		if err := t.Start(ctx); err != nil {
			return fmt.Errorf("starting transport %s: %w", t.name, err)
		}
	}
	return nil
}

// Health returns the state of every part.
func (h *Host) Health() []Health {
	var all []Health
	if l, ok := h.config.Ledger.(interface{ Health() error }); ok {
		all = append(all, Health{Name: "store", Part: "ledger", Err: l.Health()})
	}
	for _, t := range h.order {
		for _, part := range t.Health() {
			all = append(all, Health{Name: "transport " + t.name, Part: part.Part, Err: part.Err, Note: part.Note})
		}
	}
	for _, p := range h.pipelines {
		all = append(all,
			Health{Name: "pipeline " + p.config.Name, Part: "handling", Err: p.handlingError()},
			Health{Name: "pipeline " + p.config.Name, Part: "publishing", Err: errors.Join(p.out.outages()...)})
	}
	return all
}

// Tap shows the messages of a topic without consuming them, until ctx ends.
func (h *Host) Tap(ctx context.Context, ref transports.TopicRef) (<-chan *message.Message, error) {
	name, topic, err := ref.Split()
	if err != nil {
		return nil, err
	}
	t, ok := h.transports[name]
	if !ok {
		return nil, fmt.Errorf("there is no transport %q", name)
	}
	tapper, ok := t.Transport.(transports.Tapper)
	if !ok {
		return nil, fmt.Errorf("transport %q can't show its messages", name)
	}
	return tapper.Tap(ctx, topic)
}

// Promises says in sentences what this configuration promises, where it is less than it could be.
func (h *Host) Promises() []string {
	var all []string
	for _, p := range h.pipelines {
		if !p.intake.source.Broker || p.refuser == nil {
			continue
		}
		if p.config.To == "" {
			all = append(all, fmt.Sprintf("pipeline %s: it has no to, so results go only to those who ask with reply_to", p.config.Name))
		}
		dedup := p.intake.abandoned != nil
		switch {
		case dedup && h.config.Ledger.Durable():
			all = append(all, fmt.Sprintf("pipeline %s: one result for each id that the caller gives, over restarts and crashes; a message without an id that the broker delivers again is handled again", p.config.Name))
		case dedup:
			all = append(all, fmt.Sprintf("pipeline %s: one result for each id that the caller gives, until this process ends (the ledger is in memory); a message without an id that the broker delivers again is handled again", p.config.Name))
		default:
			all = append(all, fmt.Sprintf(`pipeline %s: without dedup in its middleware, a message that the broker delivers again is handled again, and written to its device again`, p.config.Name))
		}
	}
	return all
}
