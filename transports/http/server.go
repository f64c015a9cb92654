package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	nethttp "net/http"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/hostnames"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports"
)

const (
	// maxHeader is the largest head of a request, in bytes. net/http uses up to 16 times that much
	// memory for a head with many short lines, before any limit of the host counts it.
	maxHeader = 16 << 10
	// closeGrace is how long Close waits for the responses that are being written.
	closeGrace = time.Second
)

// server is the http transport.
type server struct {
	config   Config
	env      transports.Env
	access   *access
	requests *prometheus.CounterVec
	taps     transports.Taps

	// life ends with Close.
	life context.Context
	end  context.CancelFunc
	// quiesced is closed when no more messages are taken.
	quiesced chan struct{}
	work     sync.WaitGroup // the subscriptions
	serving  sync.WaitGroup // the accept loop
	gate     *listen.Gate

	mu       sync.Mutex
	routes   map[string]*subscription // by path; nil while no pipeline consumes the topic
	http     *nethttp.Server
	listener net.Listener
	failed   error // why the accept loop ended
}

var (
	_ transports.Transport = (*server)(nil)
	_ transports.Tapper    = (*server)(nil)
	_ transports.Needer    = (*Config)(nil)
)

func newRequests() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pentrough_http_requests_total",
		Help: "Answered requests by path and status. The path is empty if it isn't a topic.",
	}, []string{"path", "code"})
}

// Publisher returns an error: the transport can't send a message to a caller that hasn't made a
// request.
func (s *server) Publisher(p transports.Producer) (message.Publisher, error) {
	return nil, fmt.Errorf("making a publisher for pipeline %s: a pipeline can't publish to http", p.Pipeline)
}

// Start begins to listen.
func (s *server) Start(ctx context.Context) error {
	certificate, err := s.config.certificate()
	if err != nil {
		return err
	}
	plain, err := listen.Web(ctx, s.config.Listen)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", s.config.Listen, err)
	}
	return s.serveOn(plain, certificate)
}

// serveOn serves the connections of a listener until Close. certificate is nil without TLS.
func (s *server) serveOn(plain net.Listener, certificate *tls.Config) error {
	l := s.gate.Guard(plain)
	srv := &nethttp.Server{
		Handler:           s,
		ReadHeaderTimeout: s.config.ReadTimeout,
		IdleTimeout:       s.config.IdleTimeout,
		MaxHeaderBytes:    maxHeader,
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil || s.http != nil {
		return errors.Join(errors.New("starting a transport that was started or closed before"), l.Close())
	}
	s.http, s.listener = srv, l
	s.serving.Go(func() {
		if err := l.Serve(srv, certificate); !errors.Is(err, nethttp.ErrServerClosed) {
			s.env.Logger.Error("the listener has ended", "addr", l.Addr(), "err", err)
			s.mu.Lock()
			s.failed = fmt.Errorf("accepting connections: %w", err)
			s.mu.Unlock()
		}
	})
	s.env.Logger.Info("listening for HTTP", "addr", l.Addr(), "tls", certificate != nil)
	if !hostnames.Loopback(l.Addr()) && s.config.Token == "" {
		s.env.Logger.Warn("listening for other machines without a token: everyone who can connect may send", "addr", l.Addr())
	}
	return nil
}

func (s *server) Health() []transports.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := transports.Health{Part: "listener", Err: s.failed, Note: s.gate.Note()}
	switch {
	case s.life.Err() != nil:
		h.Err = transports.ErrClosed
	case s.http == nil:
		h.Err = errors.New("not started")
	case s.isQuiescing():
		h.Err = errors.New("the host is stopping; callers are refused")
	case h.Err == nil:
		h.Err = s.gate.Err()
	}
	return []transports.Health{h}
}

// Quiesce refuses new requests and those whose messages wait. The listener stays open, so that
// callers get the refusal.
func (s *server) Quiesce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isQuiescing() {
		return
	}
	close(s.quiesced)
	if s.http != nil {
		s.http.SetKeepAlivesEnabled(false)
	}
}

func (s *server) isQuiescing() bool {
	select {
	case <-s.quiesced:
		return true
	default:
		return false
	}
}

// Tap returns copies of the messages that are delivered from the path.
func (s *server) Tap(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if s.life.Err() != nil {
		return nil, fmt.Errorf("tapping %s: %w", topic, transports.ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	context.AfterFunc(ctx, func() { stop() })
	return s.taps.Tap(ctx, topic), nil
}

// Close answers the waiting requests with 503 and ends every connection.
func (s *server) Close(ctx context.Context) error {
	s.Quiesce()
	s.mu.Lock()
	if s.life.Err() == nil {
		s.end()
		s.env.Registerer.Unregister(s.requests)
		s.env.Registerer.Unregister(s.gate)
	}
	srv := s.http
	s.mu.Unlock()

	if srv != nil {
		short, cancel := context.WithTimeout(ctx, closeGrace)
		defer cancel()
		if srv.Shutdown(short) != nil {
			// This cuts off callers that haven't sent a whole request or don't read the response.
			_ = srv.Close()
		}
	}
	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		s.gate.Wait()
		s.work.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for requests to end: %w", context.Cause(ctx))
	}
}
