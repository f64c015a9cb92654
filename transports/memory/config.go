// Package memory is the transport between pipelines of one host. Its buffers are ordered, have a
// limit, and don't survive the process.
//
// A topic needs no configuration: it exists when a pipeline subscribes or publishes to it.
package memory

import (
	"errors"
	"fmt"

	"github.com/pentrough/pentrough/transports"
)

func init() {
	transports.Register(transports.Plugin{
		Name:    "memory",
		Summary: "Topics inside the host, between its pipelines.",
		Description: `Carries messages from one pipeline to another inside the host.

Each pipeline that consumes a topic has its own buffer. It gets all messages in the order in
which they were published. Publishing blocks while a buffer is full. So a slow consumer
slows its producers down, and no message is dropped. A consumer gets messages from the
moment when it subscribes. The host subscribes all pipelines before it takes messages from
outside.

A topic without a consumer doesn't block. Until the first consumer subscribes, it keeps the
last 1,000 messages for ` + "`pentrough listen`" + `.

A consumer gets the payload and metadata. AMQP headers arrive as strings, without their
types. No message survives a restart.`,
		Config: func() transports.Config { c := defaults; return &c },
	})
}

var defaults = Config{Buffer: 1000, Window: 1000}

// Config is the `[transport.NAME]` table of `type = "memory"`.
type Config struct {
	Buffer int `toml:"buffer" doc:"The most messages in a consumer's buffer, waiting and unsettled. Publishing blocks while a buffer is full." unit:"messages" min:"1" max:"1000000" example:"1000"`
	Window int `toml:"window" doc:"The window: how many messages of one pipeline may be unsettled." unit:"messages" min:"1" max:"1000000" example:"1000"`
}

// Topic describes a topic. It accepts every name except the empty one.
func (c *Config) Topic(name string, _ transports.Use) (transports.Topic, error) {
	if name == "" {
		return transports.Topic{}, errors.New("a topic needs a name")
	}
	return transports.Topic{Window: c.window()}, nil
}

// window returns the window of a consumer: it can't be larger than the buffer.
func (c *Config) window() int { return min(c.Window, c.Buffer) }

// New builds the transport.
func (c *Config) New(env transports.Env) (transports.Transport, error) {
	t := &memory{
		config:      *c,
		env:         env,
		topics:      map[string]*topic{},
		subscribers: map[*subscriber]struct{}{},
		closed:      make(chan struct{}),
	}
	if err := env.Registerer.Register(t); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return t, nil
}
