// Package amqp carries messages from and to RabbitMQ, or another broker that speaks AMQP 0.9.1.
//
// It uses the configuration, topology and marshaler types of watermill-amqp. Connections,
// subscriber and publisher are its own:
//
//   - A consumer may have up to prefetch unsettled messages, instead of one.
//   - All AMQP headers and properties are kept.
//   - Many messages wait for their confirms on one channel, and returned messages are detected.
//   - If the broker is down, restarts or blocks publishing, no message is lost and every call
//     returns.
//
// Start reading at [Config], then transport.go. Consuming is in subscriber.go, generation.go,
// acks.go and arrivals.go, and publishing in publisher.go, outbox.go, window.go and
// declaration.go.
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
