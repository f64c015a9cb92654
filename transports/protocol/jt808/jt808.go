// Package jt808 is the protocol JT/T 808 of vehicle terminals, in the editions of 2013 and 2019.
//
//	[transport.terminals]
//	type     = "tcp"
//	listen   = ":8808"
//	protocol = "jt808"
//
// message.go reads and writes messages, platform.go says what they mean, and parts.go joins the
// parts of long messages.
package jt808

import (
	_ "embed"
	"time"

	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/protocol"
)

//go:embed jt808.md
var description string

// Config is the configuration of jt808.
type Config struct {
	Token transports.Secret `toml:"token" doc:"One token (authentication code) for all terminals, which the host gives to terminals that register. A terminal that authenticates with another token is refused. A terminal that sends anything but a registration before it has authenticated is refused, too. Default: the host gives the phone number, and accepts every token. For a token of each terminal, use auth of the transport: then the host refuses terminals that register, unless it has this token for them." secret:"true" example:"\"${TERMINAL_TOKEN}\""`
	After string            `toml:"after" doc:"When the host responds to a message that is data. confirmed: when all pipelines that consume data have settled it. Default: at once." enum:"confirmed" example:"\"confirmed\""`
	Parts Parts             `toml:"parts" doc:"Limits of messages that arrive in parts."`
}

// Parts has the limits of messages that arrive in parts.
type Parts struct {
	Memory  int           `toml:"memory" doc:"The most memory for the parts of incomplete messages of one connection. A message that needs more is dropped." unit:"bytes" min:"2048" max:"67108864"`
	Timeout time.Duration `toml:"timeout" doc:"How long the next part of a message may take. After this time the host requests the missing parts." min:"1s" max:"1h"`
	Retries int           `toml:"retries" doc:"How often the host requests the missing parts of a message. After that it drops the message, and logs which parts are missing." min:"0" max:"100"`
}

var defaults = Config{Parts: Parts{Memory: 1 << 20, Timeout: 10 * time.Second, Retries: 3}}

func init() {
	protocol.Register(protocol.Plugin{
		Name:        "jt808",
		Summary:     "JT/T 808 of vehicle terminals, 2013 and 2019.",
		Description: description,
		Config: func() protocol.Config {
			c := defaults
			return &c
		},
	})
}

// Protocol builds the protocol.
func (c *Config) Protocol() (protocol.Protocol, error) { return &platform{*c}, nil }
