// Package handlers is the contract of handlers, which take messages and produce messages, and of
// the kinds of their errors.
//
// A handler is a plugin. Its package registers a [Plugin] in an init function. The plugin's
// [Config] builds a [Handler] for each pipeline that names it. The package handlertest tests a
// handler without a host.
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

// Handler takes one message and returns the messages that it produced. The router calls Handle
// concurrently for messages of different keys. Messages of one key come in order, each when the
// one before it is settled (see [Enqueued]).
//
// Handle must return soon after msg.Context() ends. Produced messages inherit correlation_id,
// traceparent and tracestate from msg. Each goes to the pipeline's `to`, or where [SetDestination]
// says. The input is acked when all of them are confirmed. An error has a kind: see [Permanent],
// [Drop] and [Unavailable]. An error without one is retryable.
//
// Optional interfaces: [Describer], [Refuser], [BatchHandler], [Starter], [Reporter], [Reloader],
// and io.Closer, whose Close is called when the pipeline has ended.
type Handler interface {
	Handle(msg *message.Message) ([]*message.Message, error)
}

// Describer finds out what a message is about. The router calls Describe once for each message,
// before the middleware. For a handler without it, the metadata transports.Device is the key and
// transports.MessageID is the id.
type Describer interface {
	// Describe must not change msg. If it returns an error, the message has a lane of its own.
	Describe(msg *message.Message) (Description, error)
}

// Description is what the rest of the host needs to know about a message.
type Description struct {
	// Key orders messages: those of one key are handled one after the other, as they arrived.
	Key string
	// ID names the message for dedup and traces. A message with an empty ID isn't recognised when
	// it is redelivered.
	ID string
	// Priority is 0 by default. A message starts before waiting ones of its key with a lower
	// priority.
	Priority int
	// Keep is a text for the ledger to store. An abandoned message has no payload, so the handler
	// uses this text to refuse the message: see [ReasonAbandoned].
	Keep string
	// Value belongs to the handler, such as the parsed payload. [Described] returns it in every
	// run of the message. A run must not change it.
	Value any
	// Size is how many bytes Value takes in memory beyond those that it shares with the payload.
	// For a small Value, 0 is right.
	Size int
}

// Reason says why a message is refused instead of handled.
type Reason string

const (
	// ReasonStalled: earlier messages of its key haven't moved for the pipeline's stall time.
	ReasonStalled Reason = "the device's queue hasn't moved"
	// ReasonAckDeadline: the message waited longer than the pipeline's ack_deadline.
	ReasonAckDeadline Reason = "waited for the device longer than ack_deadline"
	// ReasonIDReused: another message had the same id and another body.
	ReasonIDReused Reason = "id reused"
	// ReasonAbandoned: a run of the message began and was cut off, and its source didn't redeliver
	// the message. It has no payload; [Described] returns its Key, its ID and its Keep.
	ReasonAbandoned Reason = "an earlier attempt was cut off, and its source didn't redeliver the command"
)

// Refuser is implemented by handlers that can say how a message ended without handling it. The
// router may call Refuse before earlier messages of the same key are handled.
type Refuser interface {
	// Refuse returns messages as Handle does. They say why the message wasn't handled.
	Refuse(ctx context.Context, msg *message.Message, reason Reason) ([]*message.Message, error)
}

// BatchHandler handles several messages at once. The router gathers them as the pipeline's batch
// table says, in order. A batch may have several messages of one key. The router settles each
// message by its own outcome.
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

// Config is a handler's configuration: a pointer to a struct whose exported fields have toml and
// doc tags. An optional method Validate() error returns all problems joined, each made with
// [Invalid].
type Config interface {
	// New builds the handler for one pipeline. It does no I/O.
	New(env Env) (Handler, error)
}

// LedgerUser is implemented by configurations that may need a ledger that outlives the process.
type LedgerUser interface {
	// NeedsLedger names the setting that needs such a ledger, as in `mode = "at-most-once"`. It
	// returns "" if no setting needs one.
	NeedsLedger() string
}

// TopicRef names a topic. A handler with its own topics has configuration fields of this type.
type TopicRef = transports.TopicRef

// AnswerMatcher is implemented by configurations of handlers that may recognise the answers of
// devices themselves. That excludes a protocol that names the answers.
type AnswerMatcher interface {
	// MatchesAnswers returns the setting that recognises answers, such as "answer.match", or "".
	MatchesAnswers() string
}

// DevicesRef names a transport that has devices.
type DevicesRef = transports.DevicesRef

// Env has what the host gives to a handler.
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
	// Tracer makes spans below the one in the message's context. It is nil if tracing is off.
	Tracer trace.Tracer
	// Publisher returns a publisher for messages that don't belong to an input. Its Publish blocks
	// until the messages are confirmed, and ignores its topic argument.
	Publisher func(ref TopicRef) (message.Publisher, error)
	// Devices returns the devices of a transport.
	Devices func(ref DevicesRef) (device.Devices, error)
	// Inventory returns the inventory of a transport's devices; nil if the host has none.
	Inventory func(ref DevicesRef) device.Inventory
	// DeadLetters stores messages that couldn't be handled. It is nil if the host's store doesn't
	// outlive the process (see [StoreUser]).
	DeadLetters DeadLetters
	// HTTP replaces the network for a handler's HTTP requests, as in a test of a configuration. It
	// is nil in a host.
	HTTP http.RoundTripper
	// Source returns the state of the pipeline's source. It is nil where there is no source.
	Source func() Source
}

// Source is the state of a pipeline's source. A handler that waits for a message uses it to find
// out whether the source could have delivered the message.
type Source struct {
	// Present is how long the pipeline has had a consumer at its source, in total.
	Present time.Duration
	// Oldest is the age of the oldest unsettled message; 0 if there is none.
	Oldest time.Duration
	// Full says that the window is full: the source may have more messages.
	Full bool
}

// Plugin describes a handler to the registry.
type Plugin struct {
	// Name is the name in `handler = "name"`.
	Name string
	// Summary is one line.
	Summary string
	// Description is Markdown for the handler's page.
	Description string
	// Produces names the messages that are lost if a pipeline from a broker has no `to`, such as
	// "results". It is empty for a handler whose messages need no destination.
	Produces string
	// Config returns a new configuration with all defaults set.
	Config func() Config
}

const kind = "handler"

func init() { plugin.Define[Config](kind) }

// Register adds a handler to the registry. Call it from an init function. It panics if the name is
// taken.
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

// InvalidAt is [Invalid] for a field whose text is wrong at the byte offset. The host names that
// place in the file and shows the line.
func InvalidAt(field, text string, offset int, format string, args ...any) error {
	return plugin.InvalidAt(field, text, offset, format, args...)
}

// Outsider is implemented by configurations of handlers that use something outside the host, such
// as a process. Tests of such a configuration run in real time, since virtual time doesn't advance
// while the test waits for something outside.
type Outsider interface {
	// Outside names the thing outside the host, as in "a process". It returns "" if there is none.
	Outside() string
}

// StandInMaker is implemented by configurations of handlers that write outside the host, which a
// test of a configuration must not do.
type StandInMaker interface {
	// StandIn returns the configuration that a test uses instead. Its handler takes and refuses
	// the same messages as the real one, and writes nothing.
	StandIn() Config
}

// Roster is implemented by configurations of handlers that may have a table with a row for each
// device. `pentrough devices` shows that table.
type Roster interface {
	// Roster returns a function that reads the rows, or nil if there is no such table. A row maps
	// the column names of docs/databases.md to strings, bools, int64 and time.Time. It has at
	// least "device" and "online", and no entry for an empty column.
	Roster() func(ctx context.Context) ([]map[string]any, error)
}

// Risky is implemented by configurations that may disclose something secret, such as a token that
// is sent unencrypted. `pentrough validate` and `pentrough run` warn of it.
type Risky = transports.Risky

// SettingsChecker is implemented by configurations of handlers with settings that only a program
// outside the host knows. `pentrough validate` asks that program to check them.
type SettingsChecker interface {
	// CheckSettings starts the program as a host does, and ends it when it has accepted or refused
	// the settings. Its error wraps exec.ErrNotFound or fs.ErrNotExist if this machine doesn't
	// have the program. A wrong field is an [Invalid].
	CheckSettings(ctx context.Context, env Env) error
}

// Checker is implemented by configurations of handlers that depend on the machine or the network,
// such as on a program or a server, and can check that without changing anything.
type Checker interface {
	// Check returns what it checked and what it found. It returns when ctx ends.
	Check(ctx context.Context) []transports.Check
}
