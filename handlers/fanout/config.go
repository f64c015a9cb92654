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
		Summary:     "Makes of a command for a group one for each device.",
		Produces:    "the commands for single devices",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Takes a command that says which devices are meant, and publishes one for each of them to the topic `to`, from which a pipeline with `deliver` takes them like all others:\n\n" +
	"| field | the devices |\n|---|---|\n" +
	"| `\"devices\": [\"10.0.0.7\", \"10.0.0.8\"]` | these |\n" +
	"| `\"labels\": {\"site\": \"north\"}` | those of the [inventory](../configuration.md#inventory) that have all of these labels |\n" +
	"| `\"all\": true` | all of the inventory |\n\n" +
	"Exactly one of these fields stands in place of `device`; everything else is as in a command for one device, and each of the commands has it. They have the `id` of the group's command, " +
	"so that results are unique by `id` and `device`, and `group`, which is the one given or else the id. Their messages have ids of their own, and the correlation id and trace context of the group's. The command needs an id. " +
	"A `ttl` counts from the group's message, for all of them.\n\n" +
	"What is produced is one message of type `group`: " +
	"`{\"id\": \"...\", \"group\": \"...\", \"state\": \"expanded\", \"code\": 202, \"devices\": 3, ...}` when all the commands are confirmed, or `rejected` (400) with a `detail`: a bad command, no device, more than `max_devices`. " +
	"`tally` adds the results up. A body that isn't one JSON object is a permanent error.\n\n" +
	"**In order, paced, and again after a crash.** Commands for groups are expanded one after the other, as they came; `rate` is for all of them. A command is acked when its last device's is confirmed: with `rate` and `max_devices` " +
	"as they come, after 100 seconds at most; keep `max_devices / rate` under the pipeline's `ack_deadline`, and let a source that can't wait, such as `http`, have small groups. If the host stops or crashes in the middle, " +
	"the broker delivers the command again, and the same commands are published again: `dedup` in the pipeline that takes them knows them by id and device, and no device gets one twice. " +
	"The list is that of the moment: devices that left or joined the inventory between the two are in one and not in the other."

// Config is the configuration of fanout.
type Config struct {
	To         handlers.TopicRef   `toml:"to" doc:"Where the commands go: the topic of a pipeline with deliver." example:"\"broker:commands\"" required:"true"`
	Devices    handlers.DevicesRef `toml:"devices" doc:"The transport that holds the devices." example:"\"devices\"" required:"true"`
	Results    handlers.TopicRef   `toml:"results" doc:"Where it is said what became of a group's command. Default: the pipeline's to." example:"\"broker:results\""`
	Rate       int                 `toml:"rate" doc:"Commands a second that are published." min:"1" max:"1000000"`
	MaxDevices int                 `toml:"max_devices" doc:"The most devices of one group; a command for more is rejected." unit:"devices" min:"1"`
	Supersede  string              `toml:"supersede" doc:"A field of commands that names what a command sets, as the deliver handler that they go to would read it; it becomes the commands' own supersede. Default: none." example:"\"setpoint\""`
}

var defaults = Config{Rate: 1000, MaxDevices: 100_000}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.To == "" {
		errs = append(errs, handlers.Invalid("to", "is missing; it names the topic of the commands"))
	}
	if c.Devices == "" {
		errs = append(errs, handlers.Invalid("devices", "is missing; it names the transport that holds the devices"))
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
