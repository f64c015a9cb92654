package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/internal/filewatch"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
	"github.com/pentrough/pentrough/transports/protocol"
)

// Interface guards.
var (
	_ transports.Transport = (*transport)(nil)
	_ transports.Drainer   = (*transport)(nil)
	_ transports.Tapper    = (*transport)(nil)
	_ transports.Needer    = (*Config)(nil)
	_ device.Provider      = (*transport)(nil)
	_ device.Screener      = (*transport)(nil)
	_ device.Recorder      = (*transport)(nil)
)

type transport struct {
	config   Config
	env      transports.Env
	protocol protocol.Protocol // of sessions
	opening  protocol.Protocol // of connections without a session
	ticks    bool              // the protocol has timers
	registry *device.Registry
	metrics  *metrics
	known    device.Inventory // nil without an inventory
	screen   *screen          // nil: any device may connect
	// balancers are the networks whose connections begin with a PROXY header.
	balancers []netip.Prefix
	// recorders has the recordings of connections.
	recorders device.Recorders

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	began   time.Time
	// clock is the coarse clock in milliseconds since began. Connections note its time when they
	// read.
	clock atomic.Int64
	// complaints limits the log lines that strangers can cause.
	complaints rate.Sometimes

	gate       *listen.Gate
	tls        *endpointTLS // of accepted connections; nil without TLS
	authServer *authServer  // nil unless auth.by is http
	// dialer dials devices; nil if there are none to dial.
	dialer *dialer

	mu        sync.Mutex
	listener  net.Listener
	listenErr error // why the transport takes no new connections; nil while it does
	quiesced  bool  // no new connection is accepted or dialed
	conns     map[*conn]struct{}
	// connsEmpty is signalled when conns is empty.
	connsEmpty sync.Cond
}

// New builds the transport.
func (c *Config) New(env transports.Env) (transports.Transport, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p, err := c.protocol()
	if err != nil {
		return nil, err
	}
	opening, err := c.opening(p)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(env.Registerer)
	if err != nil {
		return nil, err
	}
	registry, err := c.registry(p, env)
	if err != nil {
		return nil, err
	}
	server, err := newAuthServer(c.Auth, env, func(cl *claim) []string { return certificateNames(cl.cert, c.certificateKind()) })
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &transport{
		config: *c, env: env, protocol: p, opening: opening, registry: registry, metrics: m, balancers: c.balancers(), ctx: ctx, cancel: cancel, began: time.Now(),
		complaints: rate.Sometimes{First: 10, Interval: time.Second}, listenErr: errors.New("not started"), conns: map[*conn]struct{}{},
		tls: newListenTLS(c.TLS), authServer: server,
	}
	t.connsEmpty.L = &t.mu
	t.dialer = newDialer(t)
	registry.Watch(t.identifyRecorded)
	_, t.ticks = p.(protocol.Ticker)
	t.gate = listen.NewGate(c.limits(env.Connections), env.Logger, t.refusedByGate)
	if env.Registerer != nil {
		if err := env.Registerer.Register(t.gate); err != nil {
			return nil, fmt.Errorf("registering the metrics of the listener: %w", err)
		}
		if err := t.dialer.register(env.Registerer); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// registry returns a registry for the configuration.
func (c *Config) registry(p protocol.Protocol, env transports.Env) (*device.Registry, error) {
	advice := "several devices behind one address: use first-frame"
	if c.identifiedBy() != byAddress {
		advice = "several devices with one name"
	}
	return device.NewRegistry(device.Options{
		Host: env.Host, Protocol: p, Named: c.namedByFrames(), Canonical: c.canonical(), Dialed: c.dialed(), Directory: device.NewDirectory(env.Now), Takeover: device.Takeover(c.Takeover), FlappingAdvice: advice,
		Limits:   device.Limits{QueueCount: c.QueueLimit.Count, QueueBytes: c.QueueLimit.Bytes, WriteTimeout: c.WriteTimeout, Attached: c.Identity.Attach},
		NewNames: device.NameLimit{Rate: c.NewNames.Rate, Burst: c.NewNames.Burst, AtStart: c.NewNames.AtStart},
		Feed: device.FeedOptions{
			EventsWindow: c.Events.Window, EventsBacklog: c.Events.Backlog, EventsTotal: c.Events.Total,
			DataWindow: c.Data.Window, DataPerDevice: c.Data.PerDevice, DataTotal: c.Data.Total, DropOldest: c.Data.Overflow == dropOldest, Memory: env.Memory,
			Heartbeat: c.Heartbeat,
		},
		Logger: env.Logger, Now: env.Now, Registerer: env.Registerer,
	})
}

// Subscriber implements transports.Transport.
func (t *transport) Subscriber(c transports.Consumer) (transports.Subscriber, error) {
	return t.registry.Subscriber(c.Pipeline), nil
}

// Publisher implements transports.Transport.
func (t *transport) Publisher(transports.Producer) (message.Publisher, error) { return nil, errProduce }

// Tap implements transports.Tapper.
func (t *transport) Tap(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if _, err := t.config.Topic(topic, transports.Consume); err != nil {
		return nil, err
	}
	return t.registry.Tap(ctx, topic), nil
}

// Drain implements transports.Drainer.
func (t *transport) Drain(topic string) { t.registry.Drain(topic) }

// Devices implements device.Provider.
func (t *transport) Devices() device.Devices { return t.registry }

// Start implements transports.Transport.
func (t *transport) Start(ctx context.Context) error {
	if user := t.config.inventoryUser(); user != "" && t.known == nil {
		return fmt.Errorf("%s: %w", user, errNoInventory)
	}
	if err := t.authServer.open(); err != nil {
		return err
	}
	watches := map[*endpointTLS]*filewatch.Watch{}
	for _, side := range t.tlsSides() {
		watches[side] = filewatch.New(side.files...)
		if err := side.reload(); err != nil {
			return err
		}
	}
	listener, err := t.listen(ctx)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quiesced {
		err := fmt.Errorf("starting the transport: %w", transports.ErrClosed)
		if listener != nil {
			err = errors.Join(err, listener.Close())
		}
		return err
	}
	t.listenErr = nil
	t.registry.Start()
	t.running.Go(t.sweep)
	for side, files := range watches {
		t.running.Go(func() { t.watchTLS(side, files) })
	}
	if t.screen != nil {
		t.running.Go(t.kickUnknown)
	}
	if listener != nil {
		t.listener = listener
		t.running.Go(func() { t.accept(listener) })
		t.env.Logger.Info("listening for devices", "addr", listener.Addr().String(), "tls", t.tls != nil)
	}
	if t.dialer != nil {
		t.env.Logger.Info("dialing devices", "devices", len(t.dialer.targets), "tls", t.dialer.tls != nil)
		t.dialer.start()
	}
	return nil
}

// Health implements transports.Transport.
func (t *transport) Health() []transports.Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.listenErr
	if err == nil {
		err = t.gate.Err()
	}
	join := func(notes ...string) string {
		return strings.Join(slices.DeleteFunc(notes, func(note string) bool { return note == "" }), "; ")
	}
	var parts []transports.Health
	if t.config.listenAddr() != "" {
		parts = append(parts, transports.Health{Part: "listener", Err: err, Note: join(t.gate.Note(), t.tls.note(t.env.Now()), t.authServer.note())})
	}
	if d := t.dialer; d != nil {
		parts = append(parts, transports.Health{Part: "connect", Err: err, Note: join(d.note(), d.tls.note(t.env.Now()))})
	}
	return parts
}

// Quiesce implements transports.Transport.
func (t *transport) Quiesce() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.quiesced {
		return
	}
	t.quiesced = true
	t.listenErr = errors.New("closed, because the host is stopping")
	t.dialer.stop()
	if t.listener != nil {
		if err := t.listener.Close(); err != nil {
			t.env.Logger.Warn("closing the listener", "err", err)
		}
	}
}

// CloseSessions implements device.Provider.
func (t *transport) CloseSessions(ctx context.Context) {
	t.Quiesce()
	t.registry.CloseSessions(ctx)
	t.closeConns(func(c *conn) bool { return c.session.Load() == nil })
	// Connections whose sessions have ended stay open for lingerTime. When ctx ends, close them at
	// once.
	defer context.AfterFunc(ctx, func() { t.closeConns(allConns) })()
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.conns) > 0 {
		t.connsEmpty.Wait()
	}
}

// Close implements transports.Transport.
func (t *transport) Close(ctx context.Context) error {
	t.Quiesce()
	t.cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t.registry.Close()
		t.closeConns(allConns)
		t.running.Wait()
		t.authServer.close()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for connections to end: %w", ctx.Err())
	}
}

func allConns(*conn) bool { return true }

// closeConns closes the sockets of some connections at once.
func (t *transport) closeConns(which func(*conn) bool) {
	t.mu.Lock()
	conns := make([]*conn, 0, len(t.conns))
	for c := range t.conns {
		if which(c) {
			conns = append(conns, c)
		}
	}
	t.mu.Unlock()
	for _, c := range conns {
		c.closeSocket()
	}
}
