// Package command is the handler that checks commands and fills in their missing fields before a
// broker gets them.
package command

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:    "command",
		Summary: "Checks commands and gives them an id, before a broker gets them.",
		Description: "Takes a command such as `{\"device\": \"10.0.0.7\", \"cmd\": \"open\"}`, and fills in the " +
			"missing fields. The `id` is that of the command, else that of the message (over HTTP " +
			"the Idempotency-Key), else a new one. The field `address` becomes `device`. The " +
			"message gets the same id, the type `command`, and a timestamp, from which a `ttl` " +
			"counts. The same command with the same id always becomes the same body, so a sender " +
			"can repeat it.\n\n" +
			"An invalid command is a permanent error that says why; `http` answers 400. Only " +
			"`deliver` knows whether the device exists, and whether the command fits into a frame.",
		Produces: "completed commands",
		Config:   func() handlers.Config { return &Config{} },
	})
}

// Config is the configuration of command.
type Config struct {
	Supersede string `toml:"supersede" doc:"The name of a field. In each command, the value of this field names the setting that the command changes, as in deliver. The command gets this value as its field supersede. Default: none." example:"\"setpoint\""`
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	if err := c.format().Validate(); err != nil {
		return handlers.Invalid("supersede", "%v", err)
	}
	return nil
}

func (c *Config) format() device.Format { return device.Format{Supersede: c.Supersede} }

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	return &command{env, c.format()}, nil
}

type command struct {
	env    handlers.Env
	format device.Format
}

var _ handlers.Describer = (*command)(nil)

func (h *command) parseCommand(msg *message.Message) (device.Command, error) {
	return h.format.ParseMessage(msg)
}

// Describe returns the device and id of a command. For an invalid command it returns those that
// are valid.
func (h *command) Describe(msg *message.Message) (handlers.Description, error) {
	c, err := h.parseCommand(msg)
	if errors.Is(err, device.ErrMalformed) {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: c.Device, ID: c.ID}, nil
}

// Handle returns the complete command.
func (h *command) Handle(msg *message.Message) ([]*message.Message, error) {
	c, err := h.parseCommand(msg)
	if err != nil {
		return nil, handlers.Permanent(err)
	}
	if c.ID == "" {
		c.ID = uuid.NewString()
	}
	out := c.Message()
	out.Metadata[transports.Timestamp] = h.env.Now().UTC().Format(time.RFC3339Nano)
	return []*message.Message{out}, nil
}
