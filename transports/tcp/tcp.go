// Package tcp is the transport of devices that connect over plain TCP.
//
// Each connection has a goroutine that waits for bytes in syscall.RawConn.Read. It has a pooled
// buffer only while there are bytes. Writing needs no goroutine per connection: the goroutine that
// enqueues a frame writes it. One sweeper finds idle connections.
//
// This package handles sockets. Sessions, queues, requests and events are in transports/device.
// Start reading at [Config], then transport.go and conn.go.
package tcp

import (
	_ "embed"

	"github.com/pentrough/pentrough/transports"
)

//go:embed tcp.md
var description string

func init() {
	transports.Register(transports.Plugin{
		Name:        "tcp",
		Summary:     "Connects TCP devices.",
		Description: description,
		Devices:     true,
		Config: func() transports.Config {
			c := defaults
			return &c
		},
	})
}
