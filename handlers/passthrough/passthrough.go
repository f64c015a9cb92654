// Package passthrough is the handler that sends messages on unchanged.
package passthrough

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:    "passthrough",
		Summary: "Sends every message on unchanged.",
		Description: "Sends each message on with its body, id, properties and headers. It leaves out those " +
			"that describe the delivery by the broker: the expiration, the exchange, the routing " +
			"key, the mark of a redelivered message, and the headers that RabbitMQ sets itself, " +
			"such as `x-death`. Messages of one device stay in order.",
		Produces: "messages",
		Config:   func() handlers.Config { return &Config{} },
	})
}

// Config is the configuration of passthrough. It has no settings.
type Config struct{}

// New builds the handler.
func (*Config) New(handlers.Env) (handlers.Handler, error) { return passthrough{}, nil }

type passthrough struct{}

// Handle returns a copy of msg.
func (passthrough) Handle(msg *message.Message) ([]*message.Message, error) {
	return []*message.Message{handlers.Forward(msg)}, nil
}
