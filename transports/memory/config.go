// Package memory is the transport between pipelines of one host: ordered, bounded, and gone with the process.
//
// Any topic name works. A topic begins to exist when a pipeline subscribes or publishes to it.
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

Every pipeline that consumes a topic has a buffer of its own and gets every message in the order of publishing. Publishing
blocks while a buffer is full, so a slow consumer slows its producers down and nothing is dropped. A consumer is known from
the moment it subscribes; the host subscribes all pipelines before anything is taken in from outside.

Without a consumer nothing blocks: the last 1,000 messages are kept for ` + "`pentrough listen`" + ` and given up when the first
consumer subscribes.

Payload and metadata cross, the types of AMQP headers don't: they arrive as strings. Nothing survives a restart.`,
		Config: func() transports.Config { c := defaults; return &c },
	})
}

var defaults = Config{Buffer: 1000, Window: 1000}

// Config is the `[transport.NAME]` table of `type = "memory"`.
type Config struct {
	Buffer int `toml:"buffer" doc:"Unsettled messages that a consumer's buffer holds before publishing blocks." unit:"messages" min:"1" max:"1000000" example:"1000"`
	Window int `toml:"window" doc:"Of these, the most that are handed to the pipeline at a time." unit:"messages" min:"1" max:"1000000" example:"1000"`
}

// Topic describes a topic. Every name but the empty one works for every use.
func (c *Config) Topic(name string, _ transports.Use) (transports.Topic, error) {
	if name == "" {
		return transports.Topic{}, errors.New("a topic needs a name")
	}
	return transports.Topic{Window: c.window()}, nil
}

// window is the most messages that are handed out: what isn't in the buffer can't be.
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
