// Package deliver is the handler that writes commands to devices and produces their results.
package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "deliver",
		Summary:     "Writes each command to its device and produces its result.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Takes commands, `{\"device\": \"10.0.0.7\", \"cmd\": \"open\"}`, writes each as one frame to the device's live connection, in order, and produces one " +
	"result for each:\n\n" +
	"| state | code | meaning |\n|---|---|---|\n" +
	"| `sent` | 202 | the kernel took the last byte of the frame for the live connection, no more |\n" +
	"| `answered` | 200 | the device answered: `reply` is what it said |\n" +
	"| `rejected` | 400 | a bad command; `detail` says what is wrong with it |\n" +
	"| `superseded` | 409 | a newer command for the same setting of the device took its place before the first byte was written |\n" +
	"| `expired` | 410 | its `ttl`, `expires_at` or `expiration` was over before the first byte was written |\n" +
	"| `busy` | 429 | too many commands wait for the device, or they haven't moved for too long |\n" +
	"| `offline` | 503 | the device has no connection here; nothing was written |\n" +
	"| `no-reply` | 504 | the command was written and its answer didn't come in time, or the connection ended first: the device may have it |\n" +
	"| `unknown` | 520 | the connection ended in the middle of the frame; or the host's process did, and the command can't or (mode `at-most-once`) mustn't be written again |\n\n" +
	"A command's id is its field `id`, else the message's id, else a new one. Its `ttl` counts from the message's timestamp, else from when this host " +
	"received it; an AMQP timestamp has whole seconds. An AMQP `expiration` is a ttl too, which goes on after the broker gave the message out: the shortest of all counts. `offline` and `group` are not built yet: a command " +
	"that asks for one of them is rejected, and so is one with a field that nobody knows.\n\n" +
	"A command whose `supersede` names what it sets (`\"supersede\": \"temperature\"`) takes the place of older ones for the same device and name that still wait in this host. One that is being " +
	"written is never replaced, and order stays as it was: the older one is left out.\n\n" +
	"With `priority = true` a command's `priority` (0 to 9), else the AMQP priority of its message, lets it overtake those for its device that wait in this host with less: an emergency stop is written next. Of what is being " +
	"written, and of a question that is open, the end is waited for.\n\n" +
	"A command with `\"reply\": true` waits for the device's answer, for its `timeout`, else that of this handler, counted from its last byte. Whatever the device sends next is the answer, and nothing else " +
	"is written to it meanwhile. Where answers repeat something of their command, `answer` says what, and a device may have several questions open: " +
	"`answer = { command = '#(\\d+)$', frame = '^(\\d+):', window = 4 }`. An answer isn't data; one that comes too late is, with the command's id as `late_for`. After a question that " +
	"stayed without an answer, the next is asked when the late answer came, or after as long again. A `timeout` above the pipeline's `stall` makes commands of a device that is " +
	"slow to answer `busy` when many wait.\n\n" +
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

	Reply   bool          `toml:"reply" doc:"Whether devices answer the commands that don't say: each then waits for its answer."`
	Timeout time.Duration `toml:"timeout" doc:"How long an answer may take, for commands that don't say." min:"1ms" max:"5m"`
	Answer  *Answer       `toml:"answer" doc:"How answers are known. Without it whatever a device sends next is its answer, and nothing is written to it meanwhile."`
	MinGap  time.Duration `toml:"min_gap" doc:"How long a device is left alone between the last byte of a command and the next command." min:"0s" max:"1m"`
}

var defaults = Config{Mode: string(device.AtLeastOnce), Timeout: 5 * time.Second}

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
		devices: devices, mode: device.Mode(c.Mode), format: c.format(), priority: c.Priority, asks: c.Reply, asker: newAsker(c), gap: c.MinGap, env: env, results: results,
	}, nil
}

// NeedsLedger implements handlers.LedgerUser.
func (c *Config) NeedsLedger() string {
	if c.Mode == string(device.AtMostOnce) {
		return fmt.Sprintf("mode = %q", c.Mode)
	}
	return ""
}

type deliver struct {
	devices device.Devices
	mode    device.Mode
	format  device.Format
	// priority says that commands may have one.
	priority bool
	asks     bool // commands that don't say
	asker    *asker
	gap      time.Duration
	env      handlers.Env
	results  *prometheus.CounterVec
}

var (
	_ handlers.Describer = (*deliver)(nil)
	_ handlers.Refuser   = (*deliver)(nil)
)

// order is what Describe finds in a message: a command, or why it is a bad one.
type order struct {
	device.Command
	// given is the id that the sender gave, empty if it gave none; ID then is a new one.
	given string
	// attempt is which attempt this is, if it isn't the first: an earlier one was cut off and may have been written.
	attempt int
	// key is the device's canonical name, empty if it has none.
	key string
	// expires is when the command is too late; zero is never.
	expires time.Time
	// rejected is the detail of a bad command.
	rejected string
	// foreign says that it isn't meant as a command at all: it came to the wrong queue.
	foreign error
}

// Describe reads the command. Its value is the *order, so that it is read once, and a ttl counts from the first receipt.
func (d *deliver) Describe(msg *message.Message) (handlers.Description, error) {
	o, err := d.read(msg)
	if err != nil {
		return handlers.Description{}, err
	}
	return handlers.Description{Key: o.key, ID: o.given, Priority: o.Priority, Value: o}, nil
}

// read returns what the message asks for, or an error if it carries no JSON object.
func (d *deliver) read(msg *message.Message) (*order, error) {
	c, err := d.format.Parse(msg.Payload, msg.Metadata[transports.MessageID])
	if errors.Is(err, device.ErrMalformed) {
		return nil, err
	}
	o := &order{Command: c, given: c.ID, expires: c.ExpiresAt}
	if o.ID == "" {
		o.ID = uuid.NewString()
	}
	if r, ok := errors.AsType[*device.Rejection](err); ok {
		switch kind := msg.Metadata[transports.Type]; kind {
		case device.TypeResult, device.TypeEvent, device.TypeData:
			o.foreign = handlers.Drop(fmt.Errorf("a message of type %s is no command", kind))
		}
		o.rejected = r.Detail
		if r.Given != "" {
			o.rejected += "; given as id: " + r.Given
		}
	}
	if o.Device != "" {
		if o.key, err = d.devices.Canonical(o.Device); err != nil && o.rejected == "" {
			o.rejected = "device: " + err.Error()
		}
	}
	switch {
	case d.priority && o.Priority == 0:
		o.Priority = amqpPriority(msg.Metadata[transports.Priority])
	case !d.priority && o.Priority > 0 && o.rejected == "":
		o.rejected = "priority: commands of this pipeline have none; `priority = true` of its handler gives them one"
		o.Priority = 0
	}
	if life := lifetime(o.TTL, msg.Metadata[transports.Expiration]); life > 0 {
		sent, err := time.Parse(time.RFC3339Nano, msg.Metadata[transports.Timestamp])
		if err != nil { // there is none
			sent = d.env.Now()
		}
		if expires := sent.Add(life); o.expires.IsZero() || expires.Before(o.expires) {
			o.expires = expires
		}
	}
	return o, nil
}

// amqpPriority is a message's priority as a command's.
func amqpPriority(property string) int {
	p, err := strconv.Atoi(property)
	if err != nil {
		return 0 // it has none
	}
	return min(max(p, 0), device.MaxPriority)
}

// lifetime is the shorter of a command's ttl and its message's expiration, in milliseconds as AMQP has it; 0 is without end.
func lifetime(ttl time.Duration, expiration string) time.Duration {
	ms, err := strconv.ParseUint(expiration, 10, 32) // RabbitMQ takes no more
	life := time.Duration(ms) * time.Millisecond
	switch {
	case err != nil || ms == 0: // 0 is for a consumer that waits already, as this one did
		return ttl
	case ttl == 0:
		return life
	default:
		return min(ttl, life)
	}
}

// described returns what Describe found, if it was called.
func (d *deliver) described(ctx context.Context, msg *message.Message) (*order, error) {
	o, ok := handlers.Described(ctx).Value.(*order)
	if !ok {
		var err error
		if o, err = d.read(msg); err != nil {
			return nil, err
		}
	}
	if j := handlers.JournalFrom(ctx); j != nil && j.Begun() > 0 {
		again := *o
		again.attempt = j.Begun() + 1
		return &again, nil
	}
	return o, nil
}

// Handle writes the command and waits until its fate is known.
func (d *deliver) Handle(msg *message.Message) ([]*message.Message, error) {
	ctx := msg.Context()
	o, err := d.described(ctx, msg)
	if err != nil {
		return nil, handlers.Permanent(err)
	}
	if o.foreign != nil {
		return nil, o.foreign
	}
	if o.rejected != "" {
		return d.result(o, device.StateRejected, o.rejected, 0), nil
	}
	if err := d.devices.Check(o.Payload); err != nil {
		return d.result(o, device.StateRejected, "cmd: "+err.Error(), 0), nil
	}
	options := device.EnqueueOptions{Expires: o.expires, Supersede: o.Supersede, ID: o.ID, Priority: o.Priority, Gap: d.gap}
	if o.Reply.Or(d.asks) {
		if options.Question, err = d.asker.question(&o.Command); err != nil {
			return d.result(o, device.StateRejected, err.Error(), 0), nil
		}
	}
	journal := handlers.JournalFrom(ctx)
	once := cmp.Or(o.Mode, d.mode) == device.AtMostOnce
	switch {
	case once && o.given == "":
		return d.result(o, device.StateRejected, "mode: at-most-once needs an id", 0), nil
	case once && (journal == nil || !journal.Durable()):
		return d.result(o, device.StateRejected, "mode: at-most-once needs dedup in the pipeline, and a store that outlives the process", 0), nil
	case once && o.attempt > 1:
		return d.result(o, device.StateUnknown, cutOff, 0), nil
	case !o.expires.IsZero() && !d.env.Now().Before(o.expires):
		return d.result(o, device.StateExpired, "its time was over before it was its turn", 0), nil
	case journal != nil:
		if err := journal.Begin(once); err != nil {
			return nil, err
		}
	}
	write, err := d.enqueue(ctx, o, options)
	switch {
	case err == nil:
	case errors.Is(err, device.ErrOffline):
		return d.result(o, device.StateOffline, err.Error(), 0), nil
	case errors.Is(err, device.ErrBusy):
		return d.result(o, device.StateBusy, err.Error(), 0), nil
	case errors.Is(err, device.ErrPayload), errors.Is(err, device.ErrDevice):
		return d.result(o, device.StateRejected, err.Error(), 0), nil
	default:
		if journal != nil {
			journal.Retract()
		}
		return nil, fmt.Errorf("queueing a command for device %s: %w", o.key, err)
	}
	handlers.Enqueued(ctx)
	waiting := &unlessVoid{Context: ctx}
	defer waiting.end()
	switch w := write.Wait(waiting); w.Fate {
	case device.Sent:
		return d.result(o, device.StateSent, w.Detail, w.Epoch), nil
	case device.Expired:
		return d.result(o, device.StateExpired, w.Detail, w.Epoch), nil
	case device.Offline:
		return d.result(o, device.StateOffline, w.Detail, w.Epoch), nil
	case device.Superseded:
		return d.result(o, device.StateSuperseded, w.Detail, w.Epoch), nil
	case device.Answered:
		r := device.Result{State: device.StateAnswered, Epoch: w.Epoch}
		r.Reply, r.Encoding = encoded(w.Reply)
		return d.ended(o, r), nil
	case device.NoReply:
		return d.result(o, device.StateNoReply, w.Detail, w.Epoch), nil
	case device.Cancelled:
		if journal != nil {
			journal.Retract() // not a byte was written
		}
		return nil, fmt.Errorf("waiting to write to device %s: %w", o.key, context.Cause(ctx))
	default:
		return d.result(o, device.StateUnknown, w.Detail, w.Epoch), nil
	}
}

// unlessVoid ends with its context, unless the delivery became void: a command that has its place in the device's order keeps it then, because
// the ones behind it keep theirs. What it comes to is in dedup's record when the delivery's copy comes. Most commands are written at once, so
// it costs nothing until somebody waits. It is for one goroutine.
type unlessVoid struct {
	context.Context
	waiting context.Context // what is waited for; nil until somebody waits
	cancel  context.CancelCauseFunc
	stop    func() bool
}

func (u *unlessVoid) wait() context.Context {
	if u.waiting == nil {
		waiting, cancel := context.WithCancelCause(context.WithoutCancel(u.Context))
		u.waiting, u.cancel = waiting, cancel
		u.stop = context.AfterFunc(u.Context, func() {
			if cause := context.Cause(u.Context); !errors.Is(cause, transports.ErrVoid) {
				cancel(cause)
			}
		})
	}
	return u.waiting
}

func (u *unlessVoid) Done() <-chan struct{} { return u.wait().Done() }

func (u *unlessVoid) Err() error { return u.wait().Err() }

func (u *unlessVoid) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

func (u *unlessVoid) end() {
	if u.waiting != nil {
		u.stop()
		u.cancel(nil)
	}
}

// Refuse answers for a command that isn't handled: it is busy, or rejected if its id is another command's.
func (d *deliver) Refuse(ctx context.Context, msg *message.Message, reason handlers.Reason) ([]*message.Message, error) {
	o, err := d.described(ctx, msg)
	switch {
	case err != nil:
		return nil, handlers.Permanent(err)
	case o.foreign != nil:
		return nil, o.foreign
	case o.rejected != "":
		return d.result(o, device.StateRejected, o.rejected, 0), nil
	case reason == handlers.ReasonIDReused:
		return d.result(o, device.StateRejected, string(reason), 0), nil
	default:
		return d.result(o, device.StateBusy, string(reason), 0), nil
	}
}

// cutOff is the detail of what can't be known.
const cutOff = "an earlier attempt was cut off; it isn't known whether it was written"

// result makes the one result of a command. That this attempt wrote nothing doesn't say that an earlier one didn't.
func (d *deliver) result(o *order, s device.State, detail string, epoch uint64) []*message.Message {
	switch s {
	case device.StateRejected, device.StateExpired, device.StateBusy, device.StateOffline, device.StateSuperseded:
		if o.attempt > 1 {
			s, detail = device.StateUnknown, fmt.Sprintf("%s; now it is %s: %s", cutOff, s, detail)
		}
	}
	return d.ended(o, device.Result{State: s, Detail: detail, Epoch: epoch})
}

// ended completes the result of a command.
func (d *deliver) ended(o *order, r device.Result) []*message.Message {
	d.results.WithLabelValues(string(r.State)).Inc()
	r.ID, r.Device, r.Host, r.Attempt, r.Time = o.ID, cmp.Or(o.key, o.Device), d.env.Host, max(o.attempt, 1), d.env.Now().UTC()
	return []*message.Message{r.Message()}
}
