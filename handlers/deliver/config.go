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

const description = "Takes commands, `{\"device\": \"10.0.0.7\", \"cmd\": \"open\"}`, writes each as one frame to the device's live connection, in order, and produces one " +
	"end for each:\n\n" +
	"| state | code | meaning |\n|---|---|---|\n" +
	"| `held` | 102 | the device is away, and the command is kept for it; its end comes as another result |\n" +
	"| `sent` | 202 | the kernel took the last byte of the frame for the live connection, no more |\n" +
	"| `answered` | 200 | the device answered: `reply` is what it said |\n" +
	"| `rejected` | 400 | a bad command; `detail` says what is wrong with it |\n" +
	"| `unknown-device` | 404 | the inventory has no such device, and it has no connection here; only where there is an `[inventory]` |\n" +
	"| `superseded` | 409 | a newer command for the same setting of the device took its place before the first byte was written |\n" +
	"| `expired` | 410 | its `ttl`, `expires_at` or `expiration` was over before the first byte was written |\n" +
	"| `busy` | 429 | too many commands wait for the device, or they haven't moved for too long |\n" +
	"| `offline` | 503 | the device has no connection here; nothing was written |\n" +
	"| `no-reply` | 504 | the command was written and its answer didn't come in time, or the connection ended first: the device may have it |\n" +
	"| `unknown` | 520 | the connection ended in the middle of the frame; or the host's process did, and the command can't or (mode `at-most-once`) mustn't be written again |\n\n" +
	"A command's id is its field `id`, else the message's id, else a new one. Its `ttl` counts from the message's timestamp, else from when this host " +
	"received it; an AMQP timestamp has whole seconds. An AMQP `expiration` is a ttl too, which goes on after the broker gave the message out: the shortest of all counts. A command with a field that nobody knows is rejected; " +
	"one for several devices is for `fanout`.\n\n" +
	"A command whose `supersede` names what it sets (`\"supersede\": \"temperature\"`) takes the place of older ones for the same device and name that still wait in this host. One that is being " +
	"written is never replaced, and order stays as it was: the older one is left out.\n\n" +
	"With `priority = true` a command's `priority` (0 to 9), else the AMQP priority of its message, lets it overtake those for its device that wait in this host with less: an emergency stop is written next. Of what is being " +
	"written, and of a question that is open, the end is waited for.\n\n" +
	"A command with `\"reply\": true` waits for the device's answer, for its `timeout`, else that of this handler, counted from its last byte. Whatever the device sends next is the answer, and nothing else " +
	"is written to it meanwhile. Where answers repeat something of their command, `answer` says what, and a device may have several questions open: " +
	"`answer = { command = '#(\\d+)$', frame = '^(\\d+):', window = 4 }`. An answer isn't data; one that comes too late is, with the command's id as `late_for`. After a question that " +
	"stayed without an answer, the next is asked when the late answer came, or after as long again. A `timeout` above the pipeline's `stall` makes commands of a device that is " +
	"slow to answer `busy` when many wait.\n\n" +
	"With `offline = \"hold\"`, here or in a command, a command whose device is away is kept in the store until the device registers, its time is over, or a newer one supersedes it; it comes before all newer ones. " +
	"That needs `dedup` and a store that outlives the process. A command beyond the limits of `hold` is `busy`.\n\n" +
	"Results, events and data that a host published (their message type says so) and that come back here, as through an exchange whose bindings match everything, are " +
	"dropped without a result, which would only come back too.\n\n" +
	"In the mode `at-least-once` a command that was being written when the host crashed is written again; `attempt` of its result says so. In the mode `at-most-once` the " +
	"store has the command on disk before it is written, and after a crash its result is `unknown` instead. That needs `dedup`, a store that outlives the process, and an id.\n\n" +
	"A body that isn't one JSON object has no result; it is a permanent error, for `poison`. A command that the middleware `timeout` ends before its first byte was " +
	"written may be tried again by `retry`, and is then behind those that came after it."

// Config is the configuration of deliver.
type Config struct {
	Devices handlers.DevicesRef `toml:"devices" doc:"The transport that holds the devices." example:"\"devices\"" required:"true"`
	Mode    string              `toml:"mode" doc:"What is promised for commands that don't say: a crash may have one written again, or leave it unknown whether it was." enum:"at-least-once,at-most-once"`

	Supersede string `toml:"supersede" doc:"A field of commands that names what a command sets, such as \"setpoint\": the newest command takes the place of those for the same device and name that still wait, whose result is superseded. Default: only a command's own supersede says so." example:"\"setpoint\""`

	Priority bool `toml:"priority" doc:"Whether a command may overtake those that wait for the same device: by its own priority (0 to 9, 9 first), else by the AMQP priority of its message. Otherwise a command with a priority is rejected, and the message's is only the broker's."`

	Offline string     `toml:"offline" doc:"What becomes of a command while its device is away, if it doesn't say: it fails, or is held until the device is there." enum:"fail,hold"`
	Hold    HoldLimits `toml:"hold" doc:"How much is held. What is held is in the host's memory, too."`

	Reply   bool          `toml:"reply" doc:"Whether devices answer the commands that don't say: each then waits for its answer."`
	Timeout time.Duration `toml:"timeout" doc:"How long an answer may take, for commands that don't say." min:"1ms" max:"5m"`
	Answer  *Answer       `toml:"answer" doc:"How answers are known. Without it whatever a device sends next is its answer, and nothing is written to it meanwhile."`
	MinGap  time.Duration `toml:"min_gap" doc:"How long a device is left alone between the last byte of a command and the next command." min:"0s" max:"1m"`
}

var defaults = Config{
	Mode: string(device.AtLeastOnce), Timeout: 5 * time.Second, Offline: string(device.Fail), Hold: HoldLimits{PerDevice: 1000, Total: 100_000},
}

// mostGap keeps a device's queue moving.
const mostGap = time.Minute

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.Devices == "" {
		errs = append(errs, handlers.Invalid("devices", "is missing; it names the transport that holds the devices"))
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
		Name: "pentrough_deliver_results_total", Help: "Commands by the state that they ended in.",
	}, []string{"state"})
	if err := env.Registerer.Register(results); err != nil {
		return nil, fmt.Errorf("registering the metrics of deliver: %w", err)
	}
	return &deliver{
		devices: devices, inventory: inventoryOf(env, c.Devices), mode: device.Mode(c.Mode), format: c.format(), priority: c.Priority, asks: c.Reply, asker: newAsker(c), gap: c.MinGap,
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
