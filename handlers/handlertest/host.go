// Package handlertest runs handlers without a host: [Run] holds one against its duties, and a [Host] lends fakes of all that
// a real host lends, for tests of what it does.
package handlertest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

// Start is what a Host's clock shows at first.
var Start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// Host lends fakes to a handler. It is safe for concurrent use.
type Host struct {
	t testing.TB

	mu        sync.Mutex
	now       time.Time
	devices   map[handlers.DevicesRef]*Devices
	inventory map[handlers.DevicesRef]*Inventory
	published map[handlers.TopicRef][]*message.Message
	outage    error
	letters   []handlers.DeadLetter
	limits    handlers.DeadLetterLimits
}

// NewHost returns a host without devices.
func NewHost(t testing.TB) *Host {
	return &Host{
		t: t, now: Start, devices: map[handlers.DevicesRef]*Devices{}, inventory: map[handlers.DevicesRef]*Inventory{}, published: map[handlers.TopicRef][]*message.Message{},
	}
}

// Env returns what the host lends: pipeline "test" of host "testhost".
func (h *Host) Env() handlers.Env {
	return handlers.Env{
		Pipeline: "test", Host: "testhost", Logger: Logger(h.t), Now: h.Now, Registerer: prometheus.NewRegistry(),
		Publisher: func(ref handlers.TopicRef) (message.Publisher, error) { return recorder{h, ref}, nil },
		Devices: func(ref handlers.DevicesRef) (device.Devices, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if d, ok := h.devices[ref]; ok {
				return d, nil
			}
			return nil, fmt.Errorf("there are no devices %q", string(ref))
		},
		Inventory: func(ref handlers.DevicesRef) device.Inventory {
			h.mu.Lock()
			defer h.mu.Unlock()
			if i, ok := h.inventory[ref]; ok {
				return i
			}
			return nil
		},
		DeadLetters: keeper{h},
	}
}

// Build builds a handler in the host's Env, and starts it if that is to be.
func (h *Host) Build(c handlers.Config) handlers.Handler {
	h.t.Helper()
	built, err := c.New(h.Env())
	if err != nil {
		h.t.Fatalf("building the handler: %v", err)
	}
	if s, ok := built.(handlers.Starter); ok {
		if err := s.Start(h.t.Context()); err != nil {
			h.t.Fatalf("starting the handler: %v", err)
		}
	}
	return built
}

// Now returns the host's time.
func (h *Host) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// Advance moves the host's time on.
func (h *Host) Advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// Devices adds devices under a name, and returns them.
func (h *Host) Devices(ref handlers.DevicesRef) *Devices {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.devices[ref] == nil {
		h.devices[ref] = &Devices{}
	}
	return h.devices[ref]
}

// Inventory adds an inventory, empty at first, for the devices of a name, and returns it.
func (h *Host) Inventory(ref handlers.DevicesRef) *Inventory {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inventory[ref] == nil {
		h.inventory[ref] = &Inventory{}
	}
	return h.inventory[ref]
}

// Published returns what was published to a topic through Env.Publisher.
func (h *Host) Published(ref handlers.TopicRef) []*message.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*message.Message(nil), h.published[ref]...)
}

// Letters returns the dead letters that were kept, each time that one was, and the limits that were given last.
func (h *Host) Letters() ([]handlers.DeadLetter, handlers.DeadLetterLimits) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]handlers.DeadLetter(nil), h.letters...), h.limits
}

// Outage makes every publish, and all keeping of dead letters, fail with err until it is called with nil.
func (h *Host) Outage(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outage = err
}

// Describe describes a message as the router does: by the handler, else by its metadata.
func Describe(handler handlers.Handler, msg *message.Message) (handlers.Description, error) {
	if d, ok := handler.(handlers.Describer); ok {
		return d.Describe(msg)
	}
	return byMetadata(msg), nil
}

// Begin describes a message and puts a run on it that ends with ctx, as the router does before it calls the handler.
func Begin(ctx context.Context, handler handlers.Handler, msg *message.Message) *Scope {
	d, err := Describe(handler, msg)
	if err != nil {
		d = handlers.Description{}
	}
	s := NewScope(ctx, d, handler)
	msg.SetContext(s.Base())
	return s
}

// Handle begins a run of a message and calls the handler.
func Handle(ctx context.Context, handler handlers.Handler, msg *message.Message) ([]*message.Message, error) {
	Begin(ctx, handler, msg)
	return handler.Handle(msg)
}

// recorder is a publisher whose messages are confirmed at once, unless there is an outage.
type recorder struct {
	host *Host
	ref  handlers.TopicRef
}

func (r recorder) Publish(_ string, msgs ...*message.Message) error {
	r.host.mu.Lock()
	defer r.host.mu.Unlock()
	if len(msgs) > 0 && msgs[0].Context().Err() != nil {
		return context.Cause(msgs[0].Context())
	}
	if r.host.outage != nil {
		return r.host.outage
	}
	r.host.published[r.ref] = append(r.host.published[r.ref], msgs...)
	return nil
}

func (r recorder) Close() error { return nil }

// keeper keeps dead letters in memory, and removes the first ones beyond the limit.
type keeper struct{ host *Host }

func (k keeper) Keep(ctx context.Context, letters []handlers.DeadLetter, limits handlers.DeadLetterLimits) (handlers.DeadLettersRemoved, error) {
	k.host.mu.Lock()
	defer k.host.mu.Unlock()
	var removed handlers.DeadLettersRemoved
	if err := ctx.Err(); err != nil {
		return removed, err
	}
	if k.host.outage != nil {
		return removed, k.host.outage
	}
	k.host.limits, k.host.letters = limits, append(k.host.letters, letters...)
	removed.Open = max(0, len(k.host.letters)-limits.Rows)
	k.host.letters = k.host.letters[removed.Open:]
	return removed, nil
}
