// Package handlers is the contract of what a pipeline does with a message, and of the error kinds that steer it.
//
// A handler is a plugin: its folder registers a [Plugin] in an init function, whose [Config] builds a [Handler] for each
// pipeline that names it. Handlers are tested with handlertest, without a host.
package handlers

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// Handler takes one message and returns what it produced. It is called concurrently for messages of different keys, and
// for messages of one key in order, the next when the one before is settled (see [Enqueued]).
//
// Handle must return soon after msg.Context() ends. Produced messages inherit correlation_id, traceparent and tracestate from
// msg; each goes to the pipeline's `to` unless [SetDestination] was called on it. The input is acked when all of them are
// confirmed. An error has a kind: see [Permanent], [Drop], [Unavailable]; without a kind it is retryable.
//
// Optional interfaces: [Describer], [Refuser], [BatchHandler], [Starter], [Reporter], [Reloader], io.Closer (called when the pipeline has ended).
type Handler interface {
	Handle(msg *message.Message) ([]*message.Message, error)
}

// Describer tells what a message is about. The router calls Describe once for each message, before the chain. Handlers
// without it have messages described by their metadata: the key is transports.Device, the id transports.MessageID.
type Describer interface {
	// Describe must not change msg. An error means that nothing can be said of the message; it then has a lane of its own.
	Describe(msg *message.Message) (Description, error)
}

// Description is what the rest of the host needs to know of a message.
type Description struct {
	// Key orders: messages of one key are handled one after the other, in arrival order.
	Key string
	// ID names the message for dedup and traces. Empty: nobody gave it one, and it can't be recognised when it comes again.
	ID string
	// Priority lets the message start before those of its key that wait and have less. 0 is what all have that ask for nothing; more is better.
	Priority int
	// Keep is what the handler needs to answer for the message without its payload: see
	// [ReasonAbandoned].
	Keep string
	// Value is the handler's own: what Describe found in the message, so that Handle needn't look again. [Described] gives it
	// back in every run of the message, which must not change it.
	Value any
}

// Reason is why a message is refused instead of handled.
type Reason string

const (
	// ReasonStalled: the messages of its key before it haven't moved for the pipeline's stall time.
	ReasonStalled Reason = "the device's queue hasn't moved"
	// ReasonAckDeadline: it waited longer than the pipeline's ack_deadline.
	ReasonAckDeadline Reason = "waited for the device longer than ack_deadline"
	// ReasonIDReused: another message had the same id and another body.
	ReasonIDReused Reason = "id reused"
	// ReasonAbandoned: a run of it began and was cut off, and its source didn't redeliver it. The
	// message has no payload; [Described] returns its Key, its ID and its Keep.
	ReasonAbandoned Reason = "an earlier attempt was cut off, and its source didn't redeliver the command"
)

// Refuser is implemented by handlers that can answer for a message without handling it, out of turn.
type Refuser interface {
	// Refuse returns the messages that say so, as Handle would.
	Refuse(ctx context.Context, msg *message.Message, reason Reason) ([]*message.Message, error)
}

// BatchHandler handles several messages at once. The router gathers them by the pipeline's batch table, in order, several
// of one key allowed, and settles each by its own outcome.
type BatchHandler interface {
	Handler
	// HandleBatch returns one outcome for each message, in the same order.
	HandleBatch(ctx context.Context, msgs []*message.Message) []Outcome
}

// Outcome is the result of one message of a batch.
type Outcome struct {
	Messages []*message.Message
	Err      error
}

// Config is a handler's configuration: a pointer to a struct whose exported fields have toml and doc tags. An optional
// method Validate() error reports all problems, joined, each made with [Invalid].
type Config interface {
	// New builds the handler for one pipeline. It does no I/O.
	New(env Env) (Handler, error)
}

// LedgerUser is implemented by configurations that can't do without a ledger which outlives the process.
type LedgerUser interface {
	// NeedsLedger returns the setting that needs it, as in `mode = "at-most-once"`, or "".
	NeedsLedger() string
}

// TopicRef names a topic; a handler that sends to topics of its own takes them from fields of this type.
type TopicRef = transports.TopicRef

// DevicesRef names a transport that holds devices.
type DevicesRef = transports.DevicesRef

// Env is what the host lends to a handler.
type Env struct {
	// Pipeline is the name of the pipeline that the handler is built for.
	Pipeline string
	// Host is the host's name, stable over restarts.
	Host string
	// Logger carries the pipeline's and the handler's name already.
	Logger *slog.Logger
	// Now is the wall clock for times in messages.
	Now func() time.Time
	// Registerer takes the handler's metrics; it adds the label "pipeline" already.
	Registerer prometheus.Registerer
	// Tracer makes spans below the one that the message's context carries. It is nil in a host that doesn't trace.
	Tracer trace.Tracer
	// Publisher returns a publisher for messages that no input owns; its Publish blocks until confirmed. The topic given to
	// Publish is ignored.
	Publisher func(ref TopicRef) (message.Publisher, error)
	// Devices returns the devices of a transport.
	Devices func(ref DevicesRef) (device.Devices, error)
	// Inventory returns the inventory of a transport's devices; nil if the host has none.
	Inventory func(ref DevicesRef) device.Inventory
	// DeadLetters keeps messages that couldn't be handled; nil if the host's store doesn't outlive the process (see [StoreUser]).
	DeadLetters DeadLetters
	// HTTP is what handlers call servers through where that is not the network, as in a test of a configuration; nil elsewhere.
	HTTP http.RoundTripper
	// Source tells how the pipeline's source stands; nil where there is none to ask.
	Source func() Source
}

// Source is how a pipeline's source stands: whether a message that didn't come would have come.
type Source struct {
	// Present is a clock that stands still while the pipeline has no consumer at its source.
	Present time.Duration
	// Oldest is how long ago the oldest message came that isn't settled; 0 if all are.
	Oldest time.Duration
	// Full says that as many are unsettled as the source hands out at once: more may wait there.
	Full bool
}

// Plugin describes a handler to the registry.
type Plugin struct {
	// Name is what `handler = "name"` says.
	Name string
	// Summary is one line.
	Summary string
	// Description is Markdown for the handler's page.
	Description string
	// Config returns a new configuration with every default set.
	Config func() Config
}

const kind = "handler"

func init() { plugin.Define[Config](kind) }

// Register makes a handler known. Call it from an init function. It panics if the name is taken.
func Register(p Plugin) {
	plugin.Register(kind, plugin.Info{
		Name: p.Name, Summary: p.Summary, Description: p.Description, Extra: p,
		New: func() any { return p.Config() },
	})
}

// Invalid returns an error for Validate that belongs to one field, named by its TOML key.
func Invalid(field, format string, args ...any) error {
	return plugin.Invalid(field, format, args...)
}

// InvalidAt is Invalid for a field whose text, which is given, is wrong at one of its bytes: the host names that place in the file, and shows the line.
func InvalidAt(field, text string, offset int, format string, args ...any) error {
	return plugin.InvalidAt(field, text, offset, format, args...)
}

// Outsider is implemented by configurations of handlers that keep something at work outside the host, such as a process. Tests of a
// configuration with one go by the clock on the wall: the virtual one stands still while something outside is waited for.
type Outsider interface {
	// Outside says what it is, as in "a process", or "" if there is nothing.
	Outside() string
}

// StandInMaker is implemented by configurations of handlers that write somewhere outside the host where a test of a configuration must not.
type StandInMaker interface {
	// StandIn returns the configuration that a test uses instead: its handler takes and refuses what the real one does, and writes nothing.
	StandIn() Config
}

// Roster is implemented by configurations of handlers that may keep a table with a row for each device, as pentrough devices shows it.
type Roster interface {
	// Roster returns what reads the rows, or nil if there is no such table. Each row has what the table holds under the names of docs/databases.md, "device" and
	// "online" at least: texts, bools, int64 and time.Time; what is empty is missing.
	Roster() func(ctx context.Context) ([]map[string]any, error)
}

// Risky is implemented by configurations that may give away what should be protected, such as a
// token that is sent in the clear: validate and run warn of it.
type Risky = transports.Risky

// Checker is implemented by configurations of handlers that need something of the machine or the network, such as a program or a server, and can
// look whether it is there, changing nothing.
type Checker interface {
	// Check returns what it looked at. It gives up when ctx ends.
	Check(ctx context.Context) []transports.Check
}
