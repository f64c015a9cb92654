package deliver

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports/device"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "deliver",
		Summary:     "Writes each command to its device and produces its result.",
		Produces:    "the results of commands",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Takes commands such as `{\"device\": \"10.0.0.7\", \"cmd\": \"open\"}`. It writes each command " +
	"as one frame to the device's connection, in order. Each command ends with one result:\n\n" +
	"| state | code | meaning |\n" +
	"|---|---|---|\n" +
	"| `held` | 102 | the device is offline, and the command is held for it. A later result says how the command ended |\n" +
	"| `sent` | 202 | the kernel took the last byte of the frame. Nothing more is known |\n" +
	"| `answered` | 200 | the device answered; `reply` has the answer |\n" +
	"| `rejected` | 400 | the command is invalid; `detail` says why |\n" +
	"| `unknown-device` | 404 | the inventory doesn't list the device, and the device has no connection to this host. Only with an `[inventory]` |\n" +
	"| `superseded` | 409 | a newer command for the same setting of the device came before the first byte was written |\n" +
	"| `expired` | 410 | its `ttl`, `expires_at` or `expiration` was over before the first byte was written |\n" +
	"| `busy` | 429 | too many commands wait for the device, or they haven't moved for too long |\n" +
	"| `offline` | 503 | the device has no connection to this host; nothing was written |\n" +
	"| `no-reply` | 504 | the command was written, but no answer came in time, or the connection ended first. The device may have the command |\n" +
	"| `unknown` | 520 | the connection or the host ended in the middle of the frame. The host can't write the command again, or must not (mode `at-most-once`) |\n\n" +
	"**Ids and expiry.** A command's id is its field `id`, else the id of its message, else " +
	"a new one. A `ttl` counts from the timestamp of the message. If it has no timestamp, the " +
	"`ttl` counts from when this host received it. An AMQP timestamp has whole seconds. The " +
	"AMQP property `expiration` is a ttl, too, and keeps counting after RabbitMQ has " +
	"delivered the message. If a command has several time limits, the earliest counts.\n\n" +
	"A command with an unknown field is rejected. For commands to several devices use " +
	"`fanout`.\n\n" +
	"**Newer commands for one setting.** The field `supersede` of a command names the " +
	"setting that it changes, such as `\"supersede\": \"temperature\"`. If older commands for " +
	"the same device and setting still wait in this host, the newer one supersedes them. A " +
	"command that is being written isn't superseded. The others keep their order.\n\n" +
	"**Priority.** With `priority = true` a command, such as an emergency stop, can overtake " +
	"other commands for its device that wait in this host. Its priority is its field " +
	"`priority` (0 to 9), else the AMQP priority of its message. It waits until the command " +
	"that is being written, or the open request, has ended.\n\n" +
	"**Requests and answers.** A command with `\"reply\": true` is a request: it waits for " +
	"the device's answer. Its `timeout`, else that of this handler, counts from the last " +
	"byte of the command. The next frame that the device sends is the answer, and the host " +
	"writes nothing to the device until then.\n\n" +
	"If answers repeat a part of their command, `answer` says which part. Then a device may " +
	"have several open requests: `answer = { command = '#(\\d+)$', frame = '^(\\d+):', " +
	"max_open = 4 }`.\n\n" +
	"The host doesn't publish an answer as data. It publishes a late answer as data, with " +
	"the id of the command as `late_for`. After a request without an answer, " +
	"the host waits for the late answer for at most another `timeout`. Then it " +
	"writes the next request. If a `timeout` is longer than the pipeline's `stall`, and many " +
	"commands wait for a slow device, they end as `busy`.\n\n" +
	"**Offline devices.** With `offline = \"hold\"`, here or in a command, a command for an " +
	"offline device is held. It stays in the ledger until the device connects, the command " +
	"expires, or a newer one supersedes it. Held commands are written before all newer " +
	"ones. This needs `dedup` in the pipeline, and a store that outlives the process. A " +
	"command above the limits of `hold` ends as `busy`.\n\n" +
	"**Messages that aren't commands.** Results, events and data that a host published can " +
	"come back to this pipeline, as from an exchange with a binding for all keys. The " +
	"handler knows them by their message type and drops them without a result.\n\n" +
	"**After a crash.** In the mode `at-least-once` the host writes a command again if a " +
	"crash interrupted it; `attempt` in the result counts the attempts. In the mode " +
	"`at-most-once` the host first stores the command on disk, and then writes it to the device. " +
	"After a crash the result of the command is `unknown`. This mode needs `dedup`, a store " +
	"that outlives the process, and an id.\n\n" +
	"A body that isn't one JSON object has no result. It is a permanent error, for " +
	"`poison`. If the middleware `timeout` ends a command before its first byte is written, " +
	"`retry` may run it again; it is then behind the commands that came after it."

// Config is the configuration of deliver.
type Config struct {
	Devices handlers.DevicesRef `toml:"devices" doc:"The transport with the devices." example:"\"devices\"" required:"true"`
	Mode    string              `toml:"mode" doc:"The mode of commands without a mode. After a crash, at-least-once may write a command again; at-most-once doesn't, and then the result can be unknown." enum:"at-least-once,at-most-once"`

	Supersede string `toml:"supersede" doc:"The name of a field. In each command, the value of this field names the setting that the command changes. A newer command then supersedes older ones for the same device and setting that still wait. Default: only the command's field supersede counts." example:"\"setpoint\""`

	Priority bool `toml:"priority" doc:"Whether a command with a higher priority overtakes those that wait for the same device. The priority (0 to 9, 9 first) is that of the command, else the AMQP priority of its message. If false, a command with a priority is rejected, and the handler ignores the priority of the message."`

	Offline string     `toml:"offline" doc:"What happens to a command whose device is offline, if the command has no field offline. fail: its result is offline. hold: the ledger stores it until the device connects." enum:"fail,hold"`
	Hold    HoldLimits `toml:"hold" doc:"How many commands are held. Each held command also uses memory of the host."`

	Reply   bool          `toml:"reply" doc:"Whether a command without a field reply is a request, which waits for the device's answer."`
	Timeout time.Duration `toml:"timeout" doc:"How long the answer may take, for a request without a timeout." min:"1ms" max:"5m"`
	Answer  *Answer       `toml:"answer" doc:"How an answer is matched to its request. Without this table the next frame that the device sends is the answer, and the host writes nothing to the device until then."`
	MinGap  time.Duration `toml:"min_gap" doc:"The least time between the last byte of a command and the first byte of the next one for the same device." min:"0s" max:"1m"`
}

var defaults = Config{
	Mode: string(device.AtLeastOnce), Timeout: 5 * time.Second, Offline: string(device.Fail), Hold: HoldLimits{PerDevice: 1000, Total: 100_000},
}

// mostGap is the longest min_gap. A longer one would keep the commands of a device waiting for too
// long.
const mostGap = time.Minute

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	if c.Devices == "" {
		errs = append(errs, handlers.Invalid("devices", "is missing; it names the transport with the devices"))
	}
	if err := c.format().Validate(); err != nil {
		errs = append(errs, handlers.Invalid("supersede", "%v", err))
	}
	if c.Timeout <= 0 || c.Timeout > device.MaxTimeout {
		errs = append(errs, handlers.Invalid("timeout", "%s is not above 0s and at most %s", c.Timeout, device.MaxTimeout))
	}
	if c.MinGap < 0 || c.MinGap > mostGap {
		errs = append(errs, handlers.Invalid("min_gap", "%s is not from 0s to %s", c.MinGap, mostGap))
	}
	if c.Hold.PerDevice < 1 {
		errs = append(errs, handlers.Invalid("hold.per_device", "is %d, must be at least 1", c.Hold.PerDevice))
	}
	if c.Hold.Total < 1 {
		errs = append(errs, handlers.Invalid("hold.total", "is %d, must be at least 1", c.Hold.Total))
	}
	if c.Answer != nil {
		errs = append(errs, c.Answer.validate()...)
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
	results := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pentrough_deliver_results_total", Help: "Results by state.",
	}, []string{"state"})
	if err := env.Registerer.Register(results); err != nil {
		return nil, fmt.Errorf("registering the metrics of deliver: %w", err)
	}
	return &deliver{
		devices: devices, inventory: inventoryOf(env, c.Devices), mode: device.Mode(c.Mode), format: c.format(), priority: c.Priority, reply: c.Reply, requests: newRequestMaker(c), gap: c.MinGap,
		offline: device.OfflinePolicy(c.Offline), limits: c.Hold, env: env, results: results,
	}, nil
}

// NeedsLedger implements handlers.LedgerUser.
func (c *Config) NeedsLedger() string {
	switch {
	case c.Mode == string(device.AtMostOnce):
		return fmt.Sprintf("mode = %q", c.Mode)
	case c.Offline == string(device.Hold):
		return fmt.Sprintf("offline = %q", c.Offline)
	default:
		return ""
	}
}
