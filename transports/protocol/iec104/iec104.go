// Package iec104 is the protocol IEC 60870-5-104 of substations and remote terminal units. The
// host is the controlling station.
//
//	[transport.stations]
//	type        = "tcp"
//	listen      = ":2404"
//	protocol    = "iec104"
//	identity.by = "address"
//
// station.go implements the protocol, asdu.go reads the messages, and link.go has the numbers and
// timers of a connection.
package iec104

import (
	_ "embed"
	"errors"
	"time"

	"github.com/pentrough/pentrough/transports/protocol"
)

//go:embed iec104.md
var description string

// Config is the configuration of iec104. Its names are those of the standard, section 9.6.
type Config struct {
	K  int           `toml:"k" doc:"How many I frames the host sends without an acknowledgement. Further commands wait." min:"1" max:"32767"`
	W  int           `toml:"w" doc:"How many I frames the host receives before it must acknowledge them. The standard recommends at most two thirds of the station's k." min:"1" max:"32767"`
	T1 time.Duration `toml:"t1" doc:"How long an acknowledgement or a confirmation of the station may take. After this time the host ends the connection." min:"1s" max:"255s"`
	T2 time.Duration `toml:"t2" doc:"After this time the host acknowledges I frames if it has nothing else to send. It must be shorter than t1." min:"1s" max:"255s"`
	T3 time.Duration `toml:"t3" doc:"After this much silence the host tests the connection." min:"1s" max:"48h"`
}

// The defaults are those of the standard.
var defaults = Config{K: 12, W: 8, T1: 15 * time.Second, T2: 10 * time.Second, T3: 20 * time.Second}

func init() {
	protocol.Register(protocol.Plugin{
		Name:        "iec104",
		Summary:     "IEC 60870-5-104 of substations and remote terminal units.",
		Description: description,
		Config: func() protocol.Config {
			c := defaults
			return &c
		},
	})
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var problems []error
	if c.T2 >= c.T1 {
		problems = append(problems, protocol.Invalid("t2", "%v must be shorter than t1, which is %v", c.T2, c.T1))
	}
	return errors.Join(problems...)
}

// Protocol builds the protocol.
func (c *Config) Protocol() (protocol.Protocol, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &station{*c}, nil
}
