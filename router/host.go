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

	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// Host runs the pipelines of one configuration.
type Host struct {
	config     Config
	log        *slog.Logger
	metrics    *metrics
	transports map[string]*transport
	ordered    []*transport // as configured, but those with devices last
	inventory  map[transports.DevicesRef]device.Inventory
	pipelines  []*pipeline
	banning    banning
}

// transport is a transport that the host has built.
type transport struct {
	transports.Transport
	name   string
	config transports.Config
}

// Health is the state of one part of the host.
type Health struct {
	// Name is "transport NAME", "pipeline NAME" or "store".
	Name string
	// Part is the name of the part, such as "publishing".
	Part string
	// Err says why the part doesn't work; nil if it works.
	Err error
	// Note is a remark about a part that works, or "".
	Note string
}

// New builds a host without any I/O. Its error has all problems of the configuration, joined.
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
	h.banning.store, h.banning.outage = c.Bans, outage.New(h.log, "the store of bans")
	var err error
	if h.metrics, err = newMetrics(c.Registerer, c.Memory); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	var errs []error
	var withDevices []*transport
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
			withDevices = append(withDevices, it)
		} else {
			h.ordered = append(h.ordered, it)
		}
	}
	h.ordered = append(h.ordered, withDevices...)
	errs = append(errs, h.takeInventory(withDevices)...)
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

// consumedTopics returns the properties of all topics that pipelines consume. It leaves out
// invalid topics: newPipeline returns their errors.
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

// transportsByName returns the transports by their names.
func (h *Host) transportsByName() map[string]transports.Transport {
	all := make(map[string]transports.Transport, len(h.transports))
	for name, t := range h.transports {
		all[name] = t.Transport
	}
	return all
}

// devicesOf returns the devices of a transport.
func (h *Host) devicesOf(ref transports.DevicesRef) (device.Devices, error) {
	t, ok := h.transports[string(ref)]
	if !ok {
		return nil, fmt.Errorf("there is no transport %q", ref)
	}
	p, ok := t.Transport.(device.Provider)
	if !ok {
		return nil, fmt.Errorf("transport %q has no devices", ref)
	}
	return p.Devices(), nil
}

// Start starts the pipelines, then the transports without devices, and then those with devices. So
// a pipeline is ready when the first message of a device arrives. If Start returns an error, it
// has closed everything.
func (h *Host) Start(ctx context.Context) error {
	err := h.start(ctx)
	if err != nil {
		err = errors.Join(err, h.close(ctx))
	}
	return err
}

func (h *Host) start(ctx context.Context) error {
	h.startBans(ctx)
	for _, p := range h.pipelines {
		if err := p.start(ctx); err != nil {
			return err
		}
	}
	for _, t := range h.ordered {
		if err := t.Start(ctx); err != nil {
			return fmt.Errorf("starting transport %s: %w", t.name, err)
		}
	}
	return nil
}

// Health returns the state of all parts.
func (h *Host) Health() []Health {
	var all []Health
	if l, ok := h.config.Ledger.(interface{ Health() error }); ok {
		all = append(all, Health{Name: "store", Part: "ledger", Err: l.Health()})
	}
	if h.banning.store != nil {
		all = append(all, Health{Name: "store", Part: "bans", Err: h.banning.outage.Err()})
	}
	for _, t := range h.ordered {
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

// Tap returns copies of the messages that pass through a topic, until ctx ends. It consumes none.
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
		return nil, fmt.Errorf("transport %q doesn't support taps", name)
	}
	return tapper.Tap(ctx, topic)
}

// Promises returns sentences on what the pipelines from brokers guarantee with this configuration,
// and what they don't.
func (h *Host) Promises() []string {
	var all []string
	for _, p := range h.pipelines {
		if !p.intake.source.Broker || p.refuser == nil {
			continue
		}
		if p.config.To == "" {
			all = append(all, fmt.Sprintf("pipeline %s: it has no `to`, so it publishes results only for commands with reply_to", p.config.Name))
		}
		dedup := p.intake.abandoned != nil
		switch {
		case dedup && h.config.Ledger.Durable():
			all = append(all, fmt.Sprintf("pipeline %s: it publishes one result for each id, also after restarts and crashes; a redelivered message without an id is handled again", p.config.Name))
		case dedup:
			all = append(all, fmt.Sprintf("pipeline %s: it publishes one result for each id, until this process ends (the ledger is in memory); a redelivered message without an id is handled again", p.config.Name))
		default:
			all = append(all, fmt.Sprintf("pipeline %s: its middleware has no dedup, so a redelivered message is handled again, and written to its device again", p.config.Name))
		}
	}
	return all
}
