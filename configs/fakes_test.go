package configs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
)

var errFake = errors.New("a plugin of this test is never built")

// fakePlugins are plugins with the settings that the tests need, under the names of the real ones.
func fakePlugins() *plugin.Set {
	set := plugin.Registered().Bare()
	transport := func(name string, devices bool, config func() transports.Config) {
		set.Register("transport", plugin.Info{
			Name: name, Summary: "A transport.", New: func() any { return config() },
			Extra: transports.Plugin{Name: name, Devices: devices},
		})
	}
	transport("amqp", false, func() transports.Config {
		return &fakeAMQP{URL: "amqp://guest:guest@127.0.0.1/", Prefetch: 1000}
	})
	transport("tcp", true, func() transports.Config {
		return &fakeTCP{Listen: ":8123", Framing: &fakeLine{Max: 4096}, IdleTimeout: 5 * time.Minute}
	})
	transport("http", false, func() transports.Config { return &fakeHTTP{Listen: "127.0.0.1:8080"} })
	transport("memory", false, func() transports.Config { return &fakeMemory{} })

	set.Register("codec", plugin.Info{Name: "line", Summary: "Lines.", New: func() any { return &fakeLine{Max: 4096} }})
	set.Register("codec", plugin.Info{Name: "raw", Summary: "Bytes.", New: func() any { return &fakeRaw{} }})

	handler := func(name string, config func() handlers.Config) {
		set.Register("handler", plugin.Info{Name: name, Summary: "A handler.", New: func() any { return config() }})
	}
	handler("deliver", func() handlers.Config { return &fakeDeliver{} })
	handler("passthrough", func() handlers.Config { return &fakePassthrough{} })
	handler("command", func() handlers.Config { return &fakePassthrough{} })
	handler("split", func() handlers.Config { return &fakeSplit{} })

	mw := func(name string, place middleware.Place, swallows bool, config func() middleware.Config) {
		set.Register("middleware", plugin.Info{
			Name: name, Summary: "A middleware.", New: func() any { return config() },
			Extra: middleware.Plugin{Name: name, Place: place, Swallows: swallows},
		})
	}
	mw("poison", middleware.PlacePoison, true, func() middleware.Config { return &fakePoison{} })
	mw("dedup", middleware.PlaceDedup, false, func() middleware.Config { return &fakeDedup{Retention: 10 * time.Minute} })
	mw("retry", middleware.PlaceRetry, false, func() middleware.Config { return &fakeRetry{MaxRetries: 3} })
	mw("timeout", middleware.PlaceTimeout, false, func() middleware.Config { return &fakeDedup{} })
	mw("note", middleware.PlaceAny, false, func() middleware.Config { return &fakeNote{} })
	return set
}

type fakeAMQP struct {
	URL      transports.Secret        `toml:"url" doc:"Where the broker is."`
	Host     string                   `toml:"host" doc:"The broker's host."`
	Password string                   `toml:"password" doc:"The password." secret:"true"`
	Port     int                      `toml:"port" doc:"The broker's port." min:"1" max:"65535"`
	Prefetch int                      `toml:"prefetch" doc:"The window." unit:"messages" min:"1" max:"65535" example:"1000"`
	TLS      *fakeTLS                 `toml:"tls" doc:"TLS."`
	Topics   map[string]fakeAMQPTopic `toml:"topic" doc:"Topics."`
}

type fakeTLS struct {
	CA string `toml:"ca" doc:"A file." required:"true" example:"\"ca.pem\""`
}

type fakeAMQPTopic struct {
	Queue      string         `toml:"queue" doc:"The queue."`
	QueueType  string         `toml:"queue_type" doc:"Its type." enum:"classic,quorum"`
	RoutingKey []string       `toml:"routing_key" doc:"Keys."`
	Arguments  map[string]any `toml:"arguments" doc:"Arguments."`
	Declare    bool           `toml:"declare" doc:"Create what is missing."`
}

func (t *fakeAMQPTopic) SetDefaults() { t.Declare = true }

func (c *fakeAMQP) Validate() error {
	var errs []error
	if !strings.HasPrefix(string(c.URL), "amqp://") {
		// As careless as an error of net/url would be.
		errs = append(errs, transports.Invalid("url", "parsing %q: first path segment %q", string(c.URL), string(c.URL)[:min(len(c.URL), 3)]))
	}
	if c.Password != "" && c.Host == "" {
		errs = append(errs, transports.Invalid("host", "missing beside a password"), fmt.Errorf("password %s without a host", c.Password))
	}
	return errors.Join(errs...)
}

func (c *fakeAMQP) Topic(name string, _ transports.Use) (transports.Topic, error) {
	t := transports.Topic{Window: c.Prefetch, Broker: true, Stream: "queue " + name, System: c.Host + "/"}
	if topic, ok := c.Topics[name]; ok && topic.Queue != "" {
		t.Stream = "queue " + topic.Queue
	} else if name == "comands" {
		t.Warning = fmt.Sprintf("topic %q has no table; did you mean %q?", name, "commands")
	}
	return t, nil
}

func (c *fakeAMQP) New(transports.Env) (transports.Transport, error) { return nil, errFake }

type fakeTCP struct {
	Listen      string        `toml:"listen" doc:"Where devices connect." example:"\":8123\""`
	Framing     codec.Config  `toml:"framing" doc:"How payloads are framed."`
	Identity    fakeIdentity  `toml:"identity" doc:"Who a device is."`
	IdleTimeout time.Duration `toml:"idle_timeout" doc:"How long a device may be silent." min:"1s" max:"24h"`
	Rate        float64       `toml:"rate" doc:"Frames." min:"0.5" max:"10"`
	Events      bool          `toml:"events" doc:"Publish events."`
	Allow       string        `toml:"allow" doc:"Who may connect."`
}

func (c *fakeTCP) Needs() transports.Needs {
	needs := transports.Needs{Binds: map[string]string{"listen": c.Listen}}
	if c.Allow == "known" {
		needs.Inventory = `allow = "known"`
	}
	return needs
}

type fakeIdentity struct {
	By string `toml:"by" doc:"The sort." enum:"address,first-frame" later:"certificate"`
}

func (c *fakeTCP) Topic(name string, use transports.Use) (transports.Topic, error) {
	if use == transports.Produce {
		return transports.Topic{}, errors.New("tcp has no topic to publish to; the deliver handler reaches devices")
	}
	if name != "events" && name != "data" {
		return transports.Topic{}, errors.New(plugin.Describe(fmt.Sprintf("there is no topic %q", name), "events, data", spelling.Nearest(name, []string{"events", "data"})))
	}
	return transports.Topic{Window: 100}, nil
}

func (c *fakeTCP) New(transports.Env) (transports.Transport, error) { return nil, errFake }

type fakeHTTP struct {
	Listen string            `toml:"listen" doc:"Where callers connect."`
	Token  transports.Secret `toml:"token" doc:"The token."`
}

func (c *fakeHTTP) Needs() transports.Needs {
	return transports.Needs{Binds: map[string]string{"listen": c.Listen}}
}

func (c *fakeHTTP) Topic(name string, _ transports.Use) (transports.Topic, error) {
	return transports.Topic{Window: 1, Impatient: true, Stream: "path " + name}, nil
}

func (c *fakeHTTP) New(transports.Env) (transports.Transport, error) { return nil, errFake }

type fakeMemory struct{}

func (c *fakeMemory) Topic(string, transports.Use) (transports.Topic, error) {
	return transports.Topic{Window: 1}, nil
}

func (c *fakeMemory) New(transports.Env) (transports.Transport, error) { return nil, errFake }

type fakeLine struct {
	Max int `toml:"max" doc:"The longest line." unit:"bytes" min:"1"`
}

func (c *fakeLine) New() (codec.Framing, error) { return nil, errFake }

type fakeRaw struct {
	Inner codec.Config `toml:"inner" doc:"What is inside."`
}

func (c *fakeRaw) New() (codec.Framing, error) { return nil, errFake }

type fakeDeliver struct {
	Devices handlers.DevicesRef `toml:"devices" doc:"The transport that holds the devices." required:"true" example:"\"devices\""`
}

func (c *fakeDeliver) New(handlers.Env) (handlers.Handler, error) { return nil, errFake }

type fakePassthrough struct{}

func (c *fakePassthrough) New(handlers.Env) (handlers.Handler, error) { return nil, errFake }

type fakeSplit struct {
	Into []handlers.TopicRef `toml:"into" doc:"Topics." max:"3"`
}

func (c *fakeSplit) New(handlers.Env) (handlers.Handler, error) { return nil, errFake }

type fakePoison struct {
	To middleware.TopicRef `toml:"to" doc:"Where failed messages go." required:"true" example:"\"broker:poison\""`
}

func (c *fakePoison) New(middleware.Env) (middleware.Middleware, error) { return nil, errFake }

type fakeDedup struct {
	Retention time.Duration `toml:"retention" renamed:"window" doc:"How long ids are remembered."`
}

func (c *fakeDedup) New(middleware.Env) (middleware.Middleware, error) { return nil, errFake }

type fakeRetry struct {
	MaxRetries int `toml:"max_retries" doc:"The most retries." min:"0"`
}

func (c *fakeRetry) New(middleware.Env) (middleware.Middleware, error) { return nil, errFake }

type fakeNote struct{}

func (c *fakeNote) New(middleware.Env) (middleware.Middleware, error) { return nil, errFake }
