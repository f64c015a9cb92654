package fanout

import (
	"errors"
	"fmt"

	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "fanout",
		Summary:     "Publishes a command for a group as one command for each device.",
		Produces:    "the commands for single devices",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Takes a command for a group of devices, and publishes one command for each device to " +
	"the topic `to`. A pipeline with `deliver` consumes these commands. One of three " +
	"fields says which devices are in the group:\n\n" +
	"| field | the devices |\n" +
	"|---|---|\n" +
	"| `\"devices\": [\"10.0.0.7\", \"10.0.0.8\"]` | the listed ones |\n" +
	"| `\"labels\": {\"site\": \"north\"}` | those in the [inventory](../configuration.md#inventory) with all these labels |\n" +
	"| `\"all\": true` | all in the inventory |\n\n" +
	"A command has exactly one of the three fields instead of `device`. Its other fields " +
	"are those of a command for one device, and each of the published commands gets them. " +
	"The command needs an id.\n\n" +
	"The published commands have the `id` of the group's command, so results are unique by " +
	"`id` and `device`. They have a `group`: the one in the command, or else its id. Each " +
	"of their messages has an id of its own, and the correlation id and trace context of " +
	"the group's message. A `ttl` counts from the group's message.\n\n" +
	"The handler produces one message of type `group`: `{\"id\": \"...\", \"group\": \"...\", " +
	"\"state\": \"expanded\", \"code\": 202, \"devices\": 3, ...}` after all commands are " +
	"confirmed. If the command is invalid, or the group has no device or more than " +
	"`max_devices`, the state is `rejected` (400) and `detail` says why. The handler " +
	"`tally` adds up the results. A body that isn't one JSON object is a permanent error.\n\n" +
	"**Order and pace.** The handler expands commands for groups one after the other, in " +
	"the order in which they came. All groups share one `rate`. The handler acks a command " +
	"when the command for the last device is confirmed. With the defaults of `rate` and " +
	"`max_devices` that takes up to 100 seconds. Keep `max_devices / rate` below the pipeline's " +
	"`ack_deadline`. A source that can't wait, such as `http`, needs small groups.\n\n" +
	"**After a crash.** If the host stops or crashes in the middle, the broker redelivers " +
	"the command, and the handler publishes the same commands again. `dedup` in the " +
	"pipeline of `deliver` knows them by id and device, so no device gets one twice. The " +
	"devices of a group are those at the moment of the expansion. If the inventory changes " +
	"between the two expansions, a device may be in only one of the expansions."

// Config is the configuration of fanout.
type Config struct {
	To         handlers.TopicRef   `toml:"to" doc:"The topic of the commands. A pipeline with deliver consumes it." example:"\"broker:commands\"" required:"true"`
	Devices    handlers.DevicesRef `toml:"devices" doc:"The transport with the devices." example:"\"devices\"" required:"true"`
	Results    handlers.TopicRef   `toml:"results" doc:"The topic of the message about a command for a group. Default: the pipeline's to." example:"\"broker:results\""`
	Rate       int                 `toml:"rate" doc:"How many commands are published each second." min:"1" max:"1000000"`
	MaxDevices int                 `toml:"max_devices" doc:"The most devices of a group. A command for more is rejected." unit:"devices" min:"1"`
	Supersede  string              `toml:"supersede" doc:"The name of a field. In each command, the value of this field names the setting that the command changes, as in deliver. The published commands get this value as their field supersede. Default: none." example:"\"setpoint\""`
}

var defaults = Config{Rate: 1000, MaxDevices: 100_000}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	if c.To == "" {
		errs = append(errs, handlers.Invalid("to", "is missing; it names the topic of the commands"))
	}
	if c.Devices == "" {
		errs = append(errs, handlers.Invalid("devices", "is missing; it names the transport with the devices"))
	}
	if c.Rate < 1 {
		errs = append(errs, handlers.Invalid("rate", "is %d, must be at least 1", c.Rate))
	}
	if c.MaxDevices < 1 {
		errs = append(errs, handlers.Invalid("max_devices", "is %d, must be at least 1", c.MaxDevices))
	}
	if err := c.format().Validate(); err != nil {
		errs = append(errs, handlers.Invalid("supersede", "%v", err))
	}
	return errors.Join(errs...)
}

func (c *Config) format() device.Format { return device.Format{Supersede: c.Supersede} }

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	devices, err := env.Devices(c.Devices)
	if err != nil {
		return nil, err
	}
	commands, err := env.Publisher(c.To)
	if err != nil {
		return nil, fmt.Errorf("publishing commands: %w", err)
	}
	f := &fanout{
		env: env, devices: devices, commands: commands, results: c.Results, format: c.format(), most: c.MaxDevices,
		piece: min(max(c.Rate/piecesPerSecond, 1), largestPiece),
	}
	f.pace = rate.NewLimiter(rate.Limit(c.Rate), f.piece)
	if env.Inventory != nil {
		f.inventory = env.Inventory(c.Devices)
	}
	return f, nil
}
