package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/outage"
	"github.com/pentrough/pentrough/transports/device"
)

// This file dials devices that are servers. A device that the host dials is a target. Apart from
// its beginning, a dialed connection is like an accepted one.
//
// A target is in one of four states:
//   - pausing: its timer runs until the next attempt.
//   - ready: its pause has passed, and it waits in dialer.ready for a place.
//   - trying: an attempt runs. It has one of the connect_concurrent places until the device is
//     identified. So devices that are down take no more descriptors than there are places.
//   - connected: a connection has it. The timer runs until the connection is steady.
//
// Ready targets with few failures go first. So a device that has just lost its connection doesn't
// wait for thousands that have been down for hours.
//
// The pauses grow until a connection is steady: it has lasted for reconnect.max_interval. So a
// device that accepts and closes each connection isn't dialed in a loop, and neither are two hosts
// that take a device from each other. While a device has another session, such as one of a
// connection that it opened itself, the host doesn't dial it.
//
// A target without a connection costs its timer. It has no goroutine and no buffer.

// maxFailures is how many failures of a target count for the order of the ready targets.
const maxFailures = 8

// The outcomes of attempts, in addition to the reasons why connections are refused.
const (
	dialConnected   = "connected"
	dialTimeout     = "timeout"
	dialUnreachable = "unreachable"
)

var errReplaced = errors.New("another connection of the device has replaced this one")

// dialer dials the devices of one transport.
type dialer struct {
	transport *transport
	net       net.Dialer
	tls       *endpointTLS // nil without TLS
	targets   []*target
	connected atomic.Int64
	// ctx ends when no further attempt may begin. It also ends the dials that have begun.
	ctx context.Context
	end context.CancelFunc

	mu     sync.Mutex
	ready  []*target
	trying int
}

// target is a device that the host dials.
type target struct {
	dialer       *dialer
	device, addr string
	outage       *outage.Outage

	// The dialer's lock guards the rest.
	pauses   backoff.Pauses
	failures int // since the last steady connection, up to maxFailures
	timer    *time.Timer
	hasPlace bool
	unsteady bool // the last connection ended before it was steady
}

// newDialer returns nil if there is nothing to dial.
func newDialer(t *transport) *dialer {
	c := &t.config
	if len(c.Connect) == 0 {
		return nil
	}
	d := &dialer{transport: t, tls: newDialTLS(c.ConnectTLS), net: net.Dialer{
		// Without the fallback of RFC 6555, a dial has one descriptor at a time.
		FallbackDelay: -1, KeepAliveConfig: c.keepalive(),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) { failed = setOptions(int(fd), c) })
			return errors.Join(err, failed)
		},
	}}
	if c.Keepalive == 0 {
		d.net.KeepAlive = -1
	}
	d.ctx, d.end = context.WithCancel(t.ctx)
	for _, to := range c.Connect {
		d.targets = append(d.targets, &target{
			dialer: d, device: to.Device, addr: to.Addr, pauses: backoff.New(c.Reconnect.InitialInterval, c.Reconnect.MaxInterval),
			outage: outage.New(t.env.Logger.With("device", to.Device, "addr", to.Addr), "the connection to a device"),
		})
	}
	return d
}

// start begins to dial all targets.
func (d *dialer) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ready = append(d.ready, d.targets...)
	d.tryNext()
}

// stop lets no further attempt begin, and ends the dials that have begun.
func (d *dialer) stop() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end()
}

// register registers the numbers of devices as metrics.
func (d *dialer) register(r prometheus.Registerer) error {
	if d == nil {
		return nil
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "pentrough", Subsystem: "tcp", Name: name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		gauge("dialed_devices", "Devices of connect.", func() float64 { return float64(len(d.targets)) }),
		gauge("dialed_devices_connected", "Devices of connect with a session on a dialed connection.", func() float64 { return float64(d.connected.Load()) }),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("registering the metrics of dials: %w", err)
		}
	}
	return nil
}

// note describes how many devices are connected. It returns "" if there is nothing to dial.
func (d *dialer) note() string {
	if d == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d dialed devices are connected", d.connected.Load(), len(d.targets))
}

// tryNext begins attempts while there are places. d.mu is locked.
func (d *dialer) tryNext() {
	for len(d.ready) > 0 && d.trying < d.transport.config.ConnectConcurrent && d.ctx.Err() == nil {
		g := d.ready[0]
		d.ready = slices.Delete(d.ready, 0, 1)
		d.trying++
		g.hasPlace = true
		d.transport.running.Go(g.try)
	}
}

// try makes one attempt to connect.
func (g *target) try() {
	d, t := g.dialer, g.dialer.transport
	switch {
	case t.registry.CheckBan(g.device) != nil, t.registry.SessionOf(g.device) != nil:
		g.retry()
		return
	case !t.isAllowed(g.device):
		g.fail(refusedUnknown, errUnknownDevice(g.device))
		return
	}
	link, err := t.gate.Dial(func() (net.Conn, error) {
		ctx, cancel := context.WithTimeout(d.ctx, t.config.ConnectTimeout)
		defer cancel()
		return d.net.DialContext(ctx, "tcp", g.addr)
	})
	if err != nil {
		g.fail(dialOutcome(err), fmt.Errorf("dialing %s: %w", g.addr, dialCause(err)))
		return
	}
	c, err := newConn(t, link, g)
	if err == nil {
		err = t.addConn(c)
	}
	if err != nil {
		_ = link.Close() // nothing was sent on it yet
		g.fail(refusedLimit, err)
		return
	}
	c.begin()
}

func dialOutcome(err error) string {
	if r, ok := errors.AsType[*listen.Refusal](err); ok {
		return r.Reason
	}
	if os.IsTimeout(err) {
		return dialTimeout
	}
	return dialUnreachable
}

// dialCause returns an error of net without its own words for "dialing".
func dialCause(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}

// identified gives the place of the attempt back, because the device is identified.
func (g *target) identified() {
	g.dialer.mu.Lock()
	defer g.dialer.mu.Unlock()
	g.leavePlace()
}

// leavePlace gives the target's place to the next one, if it has a place. dialer.mu is locked.
func (g *target) leavePlace() {
	if g.hasPlace {
		g.hasPlace = false
		g.dialer.trying--
		g.dialer.tryNext()
	}
}

// fail ends an attempt that made no session.
func (g *target) fail(outcome string, err error) {
	if g.dialer.ctx.Err() == nil {
		g.dialer.transport.metrics.dials.WithLabelValues(outcome).Inc()
		g.dialer.transport.registry.NoteError(g.device, err.Error())
		g.report(err)
	}
	g.countFailure()
	g.retry()
}

func (g *target) countFailure() {
	g.dialer.mu.Lock()
	defer g.dialer.mu.Unlock()
	g.failures = min(g.failures+1, maxFailures)
}

// report logs the beginning of an outage.
func (g *target) report(err error) {
	if !g.outage.Down() {
		g.outage.Report(err)
	}
}

// retry begins the pause before the next attempt.
func (g *target) retry() {
	d := g.dialer
	d.mu.Lock()
	defer d.mu.Unlock()
	g.leavePlace()
	if d.ctx.Err() != nil {
		return
	}
	g.timer = time.AfterFunc(g.pauses.NextBackOff(), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		at := sort.Search(len(d.ready), func(i int) bool { return d.ready[i].failures > g.failures })
		d.ready = slices.Insert(d.ready, at, g)
		d.tryNext()
	})
}

// began records that the connection has become a session.
func (g *target) began() {
	d := g.dialer
	d.transport.metrics.dials.WithLabelValues(dialConnected).Inc()
	d.connected.Add(1)
	d.mu.Lock()
	unsteady := g.unsteady
	g.timer = time.AfterFunc(d.transport.config.Reconnect.MaxInterval, g.becomeSteady)
	d.mu.Unlock()
	if !unsteady {
		g.outage.Report(nil)
	}
}

// becomeSteady records that the connection has lasted for reconnect.max_interval.
func (g *target) becomeSteady() {
	g.dialer.mu.Lock()
	g.unsteady, g.failures = false, 0
	g.pauses.Reset()
	g.dialer.mu.Unlock()
	g.outage.Report(nil)
}

// ended records the end of a session, and begins the pause before the next attempt.
func (g *target) ended(session *device.Session) {
	g.dialer.connected.Add(-1)
	g.dialer.mu.Lock()
	brief := g.timer.Stop()
	g.unsteady = g.unsteady || brief
	g.dialer.mu.Unlock()
	if brief {
		g.countFailure()
	}
	switch reason := session.Reason(); {
	case g.dialer.ctx.Err() != nil, reason == device.Kicked:
	case reason == device.Replaced:
		g.report(errReplaced)
	case brief:
		err := fmt.Errorf("the connection ended soon: %s", reason)
		if reason == device.ClientClosed {
			g.dialer.transport.registry.NoteError(g.device, err.Error())
		}
		g.report(err)
	}
	g.retry()
}
