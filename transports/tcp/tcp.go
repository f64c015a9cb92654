// Package tcp holds the connections of devices that speak over plain TCP.
//
// A goroutine per connection is parked in syscall.RawConn.Read and holds a pooled buffer only while bytes are there; nobody writes but
// who has something to write; one sweeper finds the idle. What makes a device of a connection, and everything that isn't
// about sockets, is in transports/device. Start reading at [Config], then transport.go and conn.go.
package tcp

import (
	_ "embed"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/codec"
)

//go:embed tcp.md
var description string

func init() {
	transports.Register(transports.Plugin{
		Name:        "tcp",
		Summary:     "Holds the connections of TCP devices.",
		Description: description,
		Devices:     true,
		Config: func() transports.Config {
			c := defaults
			c.Framing = codec.Named("line")
			return &c
		},
	})
}
