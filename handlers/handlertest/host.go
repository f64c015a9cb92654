// Package handlertest tests handlers without a host. [Run] is the conformance suite of handlers. A
// [Host] has fakes of everything that a host provides, for tests of a handler's own behaviour.
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

// Start is the first time of a Host's clock.
var Start = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// Host provides fakes to a handler. It is safe for concurrent use.
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

// Env returns the environment of a handler: pipeline "test" of host "testhost".
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

// Build builds a handler with the host's Env, and starts it if it is a [handlers.Starter].
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

// Advance moves the host's clock forward.
func (h *Host) Advance(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

// Devices returns the devices of a name. It adds them at the first call.
func (h *Host) Devices(ref handlers.DevicesRef) *Devices {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.devices[ref] == nil {
		h.devices[ref] = &Devices{}
	}
	return h.devices[ref]
}

// Inventory returns the inventory for the devices of a name. It adds an empty one at the first
// call.
func (h *Host) Inventory(ref handlers.DevicesRef) *Inventory {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.inventory[ref] == nil {
		h.inventory[ref] = &Inventory{}
	}
	return h.inventory[ref]
}

// Published returns the messages that were published to a topic through Env.Publisher.
func (h *Host) Published(ref handlers.TopicRef) []*message.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*message.Message(nil), h.published[ref]...)
}

// Letters returns the dead letters from all calls of Keep, and the limits of the last call.
func (h *Host) Letters() ([]handlers.DeadLetter, handlers.DeadLetterLimits) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]handlers.DeadLetter(nil), h.letters...), h.limits
}

// Outage makes every call of Publish and Keep fail with err, until it is called with nil.
func (h *Host) Outage(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.outage = err
}

// Describe returns the description of a message as the router makes it: from the handler, else
// from the metadata.
func Describe(handler handlers.Handler, msg *message.Message) (handlers.Description, error) {
	if d, ok := handler.(handlers.Describer); ok {
		return d.Describe(msg)
	}
	return describeByMetadata(msg), nil
}

// Begin begins a run of a message, as the router does before it calls the handler. It describes
// the message and sets its context. The run ends with ctx.
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

// recorder is a publisher that records messages and confirms them at once, unless there is an
// outage.
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

// keeper stores dead letters in memory. Above the limit it removes the oldest.
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
