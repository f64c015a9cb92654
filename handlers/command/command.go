// Package command is the handler that checks and completes commands on their way to a broker.
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
		Name:     "command",
		Summary:  "Checks commands and completes them with an id, for a broker.",
		Produces: "completed commands",
		Description: "Takes a command, `{\"device\": \"10.0.0.7\", \"cmd\": \"open\"}`, and produces it in full: `id` is the command's, else the message's (over HTTP the " +
			"Idempotency-Key), else a new one; `address` becomes `device`. The message gets the same id, the type `command`, and a timestamp, from which a " +
			"`ttl` counts. The same command with the same id always becomes the same body, so that it can be repeated.\n\n" +
			"A bad command is a permanent error that says what is wrong with it; `http` answers 400. Whether the device exists, and whether the command fits into a frame, is " +
			"known only to `deliver`.",
		Config: func() handlers.Config { return &Config{} },
	})
}

// Config is the configuration of command.
type Config struct {
	Supersede string `toml:"supersede" doc:"A field of commands that names what a command sets, as the deliver handler that they go to would read it; it becomes the command's own supersede. Default: none." example:"\"setpoint\""`
}

// Validate reports all problems.
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

func (h *command) read(msg *message.Message) (device.Command, error) {
	return h.format.ParseMessage(msg)
}

// Describe says whose the command is, and of a bad one what can be trusted of that.
func (h *command) Describe(msg *message.Message) (handlers.Description, error) {
	c, err := h.read(msg)
	if errors.Is(err, device.ErrMalformed) {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: c.Device, ID: c.ID}, nil
}

// Handle produces the complete command.
func (h *command) Handle(msg *message.Message) ([]*message.Message, error) {
	c, err := h.read(msg)
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
