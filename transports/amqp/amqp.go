// Package amqp carries messages from and to RabbitMQ, or any broker that speaks AMQP 0.9.1.
//
// It uses watermill-amqp's configuration, topology and marshaler types, with a connection,
// subscriber and publisher of its own: up to prefetch messages in flight instead of one, any AMQP
// header and property kept, confirms pipelined on one channel, returned messages noticed, and a
// broker that is absent, restarted or blocked survived without a message lost or a call that
// never returns. Start reading at [Config], then transport.go.
package amqp

import (
	_ "embed"

	"github.com/pentrough/pentrough/transports"
)

//go:embed amqp.md
var description string

func init() {
	transports.Register(transports.Plugin{
		Name:        "amqp",
		Summary:     "Consumes from and publishes to RabbitMQ (AMQP 0.9.1).",
		Description: description,
		Config: func() transports.Config {
			c := defaults
			return &c
		},
	})
}
