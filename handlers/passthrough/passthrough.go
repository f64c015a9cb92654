// Package passthrough is the handler that sends messages on as they are.
package passthrough

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:     "passthrough",
		Summary:  "Sends every message on as it is.",
		Produces: "messages",
		Description: "Produces each message as it came: body, id and all properties and headers, but for those that belong to the broker that it came through " +
			"(headers that RabbitMQ sets by itself, such as `x-death`; expiration, exchange, routing key, redelivered). Messages of one device stay in order.",
		Config: func() handlers.Config { return &Config{} },
	})
}

// Config is the configuration of passthrough. It has no settings.
type Config struct{}

// New builds the handler.
func (*Config) New(handlers.Env) (handlers.Handler, error) { return passthrough{}, nil }

type passthrough struct{}

// Handle produces a copy of msg.
func (passthrough) Handle(msg *message.Message) ([]*message.Message, error) {
	return []*message.Message{handlers.Forward(msg)}, nil
}
