package handlertest

import (
	"context"
	"sync"

	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// Devices is a fake of a transport's devices. By default every name is an online device in epoch
// 1, and every payload is sent at once. To change that, set the functions before use. It is safe
// for concurrent use.
type Devices struct {
	// CanonicalFunc, BaseFunc, CheckFunc and EnqueueFunc replace the methods.
	CanonicalFunc func(device string) (string, error)
	BaseFunc      func(device string) string
	CheckFunc     func(payload []byte) error
	EnqueueFunc   func(name string, payload []byte, o device.EnqueueOptions) (device.Write, error)

	// EpochFunc replaces the method. If it is nil, every device's epoch is 1.
	EpochFunc func(name string) uint64

	mu       sync.Mutex
	frames   []Frame
	watchers []func(name string)
}

var _ device.Devices = (*Devices)(nil)

// Frame is one call of Enqueue.
type Frame struct {
	Device  string
	Payload string
	Options device.EnqueueOptions
}

// Canonical returns the name unchanged.
func (d *Devices) Canonical(name string) (string, error) {
	if d.CanonicalFunc != nil {
		return d.CanonicalFunc(name)
	}
	return name, nil
}

// Base returns the name unchanged.
func (d *Devices) Base(name string) string {
	if d.BaseFunc != nil {
		return d.BaseFunc(name)
	}
	return name
}

// Check accepts every payload.
func (d *Devices) Check(c protocol.Command) error {
	if d.CheckFunc != nil {
		return d.CheckFunc(c.Payload)
	}
	return nil
}

// Enqueue records the call.
func (d *Devices) Enqueue(name string, payload []byte, o device.EnqueueOptions) (device.Write, error) {
	d.mu.Lock()
	d.frames = append(d.frames, Frame{name, string(payload), o})
	d.mu.Unlock()
	if d.EnqueueFunc != nil {
		return d.EnqueueFunc(name, payload, o)
	}
	return Ended(device.Written{Fate: device.Sent, Epoch: 1}), nil
}

// Epoch returns 1.
func (d *Devices) Epoch(name string) uint64 {
	if d.EpochFunc != nil {
		return d.EpochFunc(name)
	}
	return 1
}

// Watch stores f for Arrive.
func (d *Devices) Watch(f func(name string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchers = append(d.watchers, f)
}

// Arrive calls the watchers as if the device had a new session.
func (d *Devices) Arrive(name string) {
	d.mu.Lock()
	watchers := d.watchers
	d.mu.Unlock()
	for _, f := range watchers {
		f(name)
	}
}

// Frames returns all calls of Enqueue.
func (d *Devices) Frames() []Frame {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Frame(nil), d.frames...)
}

// Ended is a write that has ended.
type Ended device.Written

// Wait returns at once.
func (e Ended) Wait(context.Context) device.Written { return device.Written(e) }

// Pending is a write that ends with End, or with the context of the caller of Wait.
type Pending struct {
	once sync.Once
	fate chan device.Written
	// Waiting is closed when Wait is called.
	Waiting chan struct{}
}

// NewPending returns a write that hasn't ended.
func NewPending() *Pending {
	return &Pending{fate: make(chan device.Written, 1), Waiting: make(chan struct{})}
}

// End ends the write with w. Call it once.
func (p *Pending) End(w device.Written) { p.fate <- w }

// Wait waits for End and returns its argument.
func (p *Pending) Wait(ctx context.Context) device.Written {
	p.once.Do(func() { close(p.Waiting) })
	select {
	case w := <-p.fate:
		return w
	case <-ctx.Done():
		return device.Written{Fate: device.Cancelled}
	}
}
