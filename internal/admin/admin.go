// Package admin is the host's HTTP listener for people and monitoring. It shows the health, the
// metrics, the devices and the messages that pass through a topic. It also disconnects devices.
//
// [New] gets functions that return this information. [Server.Start] begins to listen, and
// [Server.Close] ends that. The listener has no authentication and belongs on a loopback or
// private address.
package admin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	nethttp "net/http"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/pentrough/pentrough/internal/hostnames"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/recording"
)

const (
	// readTimeout and writeTimeout bound a request and its response. For a tap, writeTimeout
	// bounds each line.
	readTimeout  = 10 * time.Second
	writeTimeout = 30 * time.Second
	idleTimeout  = 2 * time.Minute
	maxHeader    = 16 << 10
)

// Config is the configuration of a [Server].
type Config struct {
	// Addr is the address to listen on. If it is empty, there is no listener.
	Addr string
	// Connections is how many connections may be open. 0 means no limit.
	Connections int
	// Hosts has further host names of the listener.
	Hosts []string
	// Host is the host's name.
	Host    string
	Version string
	Logger  *slog.Logger
	// Redact removes secrets from reasons and warnings; nil removes none.
	Redact func(string) string
	// Gatherer has the metrics that /metrics shows.
	Gatherer prometheus.Gatherer
	// Health returns the state of all parts, in a fixed order.
	Health func() []Health
	// Devices returns the devices that are online or in the inventory, in the order to show.
	Devices func() []Device
	// Gate disconnects devices.
	Gate Gate
	// Tap yields copies of a topic's messages ("transport:topic") until ctx ends, and then closes
	// the channel. It refuses topics that the host doesn't use.
	Tap func(ctx context.Context, ref string) (<-chan *message.Message, error)
	// Record yields the lines of a recording. When ctx ends, the lines end.
	Record func(ctx context.Context, r RecordRequest) (iter.Seq[recording.Line], error)
}

// RecordRequest says what to record.
type RecordRequest struct {
	Device string
	// Transport is the name of the device's transport. It may be empty if only one has devices.
	Transport string
	// Next means that the recording begins with the next connection, even if the device is online.
	Next bool
}

// Health is the state of one part of the host.
type Health struct {
	// Name is what the part belongs to, such as "transport broker".
	Name string
	Part string
	// Err says why the part doesn't work; nil if it works.
	Err error
	// Note is a remark about a part that works, or "".
	Note string
}

// Server is the listener.
type Server struct {
	config Config
	hosts  hostnames.Names
	taps   taps
	// life ends with Close.
	life    context.Context
	end     context.CancelFunc
	serving sync.WaitGroup
	gate    *listen.Gate

	mu       sync.Mutex
	http     *nethttp.Server
	listener net.Listener
}

// New returns a server that doesn't listen yet.
func New(c Config) *Server {
	s := &Server{
		config: c, hosts: hostnames.New(c.Addr, c.Hosts...),
		gate: listen.NewGate(listen.Limits{Share: c.Connections}, c.Logger, nil),
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// handler returns the handler of all requests.
func (s *Server) handler() nethttp.Handler {
	mux := nethttp.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelError),
	}))
	mux.HandleFunc("GET /api/v1/tap", ownOriginOnly(s.tap))
	mux.HandleFunc("GET /api/v1/record", ownOriginOnly(s.record))
	mux.HandleFunc("GET /api/v1/devices", ownOriginOnly(s.devices))
	mux.HandleFunc("POST /api/v1/devices/kick", s.kick)
	mux.HandleFunc("POST /api/v1/devices/ban", s.ban)
	mux.HandleFunc("POST /api/v1/devices/unban", s.unban)
	mux.HandleFunc("GET /api/v1/devices/bans", ownOriginOnly(s.bans))
	mux.HandleFunc("GET /api/v1/version", s.version)
	own := nethttp.NewCrossOriginProtection()
	own.SetDenyHandler(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { writeForeignOrigin(w) }))
	return s.ownHostOnly(own.Handler(mux))
}

// Start begins to listen. ctx bounds only the call.
func (s *Server) Start(ctx context.Context) error {
	if s.config.Addr == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil || s.life.Err() != nil {
		return errors.New("starting an admin listener that was started or closed before")
	}
	l, err := listen.Web(ctx, s.config.Addr)
	if err != nil {
		return fmt.Errorf("listening on %s for admin: %w", s.config.Addr, err)
	}
	srv := &nethttp.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return s.life },
	}
	s.http, s.listener = srv, l
	s.serving.Go(func() {
		if err := s.gate.Guard(l).Serve(srv, nil); !errors.Is(err, nethttp.ErrServerClosed) {
			s.config.Logger.Error("admin listener ended", "addr", l.Addr(), "err", err)
		}
	})
	s.config.Logger.Info("listening for admin: health, metrics, taps", "addr", l.Addr())
	if !hostnames.Loopback(l.Addr()) {
		s.config.Logger.Warn("the admin listener has no authentication and is reachable from beyond this machine", "addr", l.Addr())
	}
	return nil
}

// Addr returns the address on which the server listens, or nil.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Close ends taps at once. Other requests may finish until ctx ends.
func (s *Server) Close(ctx context.Context) error {
	s.end()
	s.mu.Lock()
	srv := s.http
	s.mu.Unlock()
	if srv == nil {
		return nil
	}
	err := srv.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("waiting for admin requests to end: %w", err), srv.Close())
	}
	s.serving.Wait()
	if err == nil {
		s.gate.Wait()
	}
	return err
}
