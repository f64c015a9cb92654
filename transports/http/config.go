// Package http is the transport through which programs send messages by HTTP. A POST to the path
// of a topic is a message, and the response reports its outcome. Start reading at [Config], then
// serve.go and route.go.
package http

import (
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/transports"
)

//go:embed http.md
var description string

func init() {
	transports.Register(transports.Plugin{
		Name:        "http",
		Summary:     "Receives messages by HTTP POST and answers with their outcome.",
		Description: description,
		Config:      func() transports.Config { c := defaults; return &c },
	})
}

var defaults = Config{
	Listen:         "127.0.0.1:8080",
	MaxBody:        1 << 20,
	MaxConnections: 2000,
	Window:         1000,
	RequestTimeout: 30 * time.Second,
	MaxWait:        time.Minute,
	ReadTimeout:    10 * time.Second,
	WriteTimeout:   10 * time.Second,
	IdleTimeout:    2 * time.Minute,
}

// Config is the `[transport.NAME]` table of `type = "http"`.
type Config struct {
	Listen         string                `toml:"listen" doc:"Address to listen on, host:port. An empty host (:PORT) or [::] is every IPv4 and IPv6 address; 0.0.0.0 is IPv4 only." example:"\"127.0.0.1:8080\""`
	Token          transports.Secret     `toml:"token" doc:"Bearer token that every request must have. Without one, everyone who can connect may send messages." secret:"true" example:"\"${WEB_TOKEN}\""`
	TLS            *transports.ServerTLS `toml:"tls" doc:"Certificate for HTTPS. With it the transport speaks HTTPS instead of HTTP."`
	Hosts          []string              `toml:"hosts" doc:"Without a token: further host names that a request may have in its Host header, such as the name of a proxy." example:"[\"gateway.example.com\"]"`
	MaxBody        int                   `toml:"max_body" doc:"Largest body of a request." unit:"bytes" min:"1" max:"1073741824" example:"1048576"`
	MaxConnections int                   `toml:"max_connections" doc:"Most connections at a time; the limit on open files applies, too. A further connection displaces the oldest one whose caller isn't identified or has no request. If there is no such connection, the new one waits to be accepted." min:"1" max:"1000000" example:"2000"`
	Window         int                   `toml:"window" doc:"The window: how many messages of one path may be unsettled. Further messages wait." unit:"messages" min:"1" max:"1000000" example:"1000"`
	RequestTimeout time.Duration         `toml:"request_timeout" doc:"How long a request waits until its message is settled. After that the answer is 503." min:"1ms" example:"\"30s\""`
	MaxWait        time.Duration         `toml:"max_wait" doc:"Longest time that a caller can wait for an answer with ?wait=." min:"0s" example:"\"1m\""`
	ReadTimeout    time.Duration         `toml:"read_timeout" doc:"How long the head of a request may take to arrive, and then how long its body may take." min:"1ms" example:"\"10s\""`
	WriteTimeout   time.Duration         `toml:"write_timeout" doc:"How long a caller may take to receive the response." min:"1ms" example:"\"10s\""`
	IdleTimeout    time.Duration         `toml:"idle_timeout" doc:"How long a connection stays open between requests." min:"1ms" example:"\"2m\""`
}

// Validate checks what the limits of the fields don't cover.
func (c *Config) Validate() error {
	var errs []error
	if err := transports.CheckListen(c.Listen); err != nil {
		errs = append(errs, transports.Invalid("listen", "%v", err))
	}
	if strings.ContainsFunc(string(c.Token), func(r rune) bool { return r <= ' ' || r > '~' }) {
		errs = append(errs, transports.Invalid("token", "a bearer token must be printable ASCII without spaces"))
	}
	return errors.Join(errs...)
}

// Topic describes the topic of a path.
func (c *Config) Topic(name string, use transports.Use) (transports.Topic, error) {
	switch {
	case use == transports.Produce:
		return transports.Topic{}, errors.New("a pipeline can't publish to http; without `to`, its messages are the response")
	case !strings.HasPrefix(name, "/"):
		return transports.Topic{}, fmt.Errorf("%q is not a path; a path begins with a slash, such as \"/commands\"", name)
	case path.Clean(name) != name || strings.ContainsAny(name, "?#%") || strings.ContainsFunc(name, notInPath):
		return transports.Topic{}, fmt.Errorf("%q is not a plain path, such as \"/commands\": no spaces, no ? # %%, no slash at its end", name)
	}
	return transports.Topic{Window: c.Window, Impatient: true, Stream: name}, nil
}

func notInPath(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// Needs implements transports.Needer.
func (c *Config) Needs() transports.Needs {
	return transports.Needs{Binds: map[string]string{"listen": c.Listen}, Connections: c.MaxConnections}
}

var _ transports.Risky = (*Config)(nil)

// Risks implements transports.Risky.
func (c *Config) Risks() map[string]string {
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && c.Token != "" && c.TLS == nil && !transports.Loopback(host) {
		return map[string]string{"token": "the token is sent in the clear, because tls isn't set and listen isn't a loopback address"}
	}
	return nil
}

// certificate loads the certificate of the tls table. It returns nil without the table.
func (c *Config) certificate() (*tls.Config, error) {
	if c.TLS == nil {
		return nil, nil
	}
	loaded, err := c.TLS.Config()
	if err != nil {
		return nil, err
	}
	loaded.NextProtos = []string{"http/1.1"}
	return loaded, nil
}

// New builds the transport.
func (c *Config) New(env transports.Env) (transports.Transport, error) {
	s := &server{config: *c, env: env, routes: map[string]*subscription{}, quiesced: make(chan struct{})}
	s.life, s.end = context.WithCancel(context.Background())
	s.access = newAccess(c, env.Host)
	s.requests = newRequests()
	s.gate = listen.NewGate(listen.Limits{Max: c.MaxConnections, Share: env.Connections}, env.Logger, nil)
	for _, metrics := range []prometheus.Collector{s.requests, s.gate} {
		if err := env.Registerer.Register(metrics); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return s, nil
}
