package router

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
	"github.com/pentrough/pentrough/transports/device"
)

// Config is everything that a [Host] is made of.
type Config struct {
	// Name is the host's name, stable over restarts.
	Name string
	// ShutdownTimeout bounds a stop; the last of it is kept for closing what had to be cancelled.
	ShutdownTimeout time.Duration
	Transports      []Transport
	Pipelines       []Pipeline
	// Inventory lists the devices; nil: there is no list.
	Inventory Inventory
	// Ledger is where dedup keeps its records.
	Ledger middleware.Ledger
	// DeadLetters is where handlers keep what couldn't be handled; nil if there is no place for
	// it.
	DeadLetters handlers.DeadLetters
	// Memory bounds the bytes that the host has in memory. Its budget of held commands is the
	// ledger's to keep.
	Memory transports.Memory
	// HTTP is what handlers call servers through; nil is the network.
	HTTP   http.RoundTripper
	Logger *slog.Logger
	// Registerer takes all metrics.
	Registerer prometheus.Registerer
	// Tracer makes spans of what happens to messages; nil: nobody traces.
	Tracer trace.Tracer
	// Redact takes secrets out of the errors of handlers and middleware, whose texts leave the
	// host in answers, poisoned messages and traces; nil takes none out.
	Redact func(text string) string
	// Now is the wall clock for times in messages; nil is time.Now.
	Now func() time.Time
}

// Inventory is the list of devices of which each transport has its own view.
type Inventory interface {
	// View returns the list as a transport knows its devices: by the names that canonical returns.
	View(transport string, canonical func(device string) (string, error)) (device.Inventory, error)
}

// Transport is one configured transport.
type Transport struct {
	Name   string
	Type   string
	Config transports.Config
	// Connections is the transport's [transports.Env.Connections].
	Connections int
}

// Pipeline is one configured pipeline.
type Pipeline struct {
	Name string
	From transports.TopicRef
	// To is empty for a pipeline whose outputs go nowhere but into the reply.
	To         transports.TopicRef
	Middleware []Middleware
	Handler    Handler
	// Key overrides the key of the handler's description: "payload.FIELD[.FIELD...]" of a JSON
	// payload, or "metadata.KEY".
	Key string
	// Competing says that others may consume from the stream of From, on purpose.
	Competing bool
	// DropErrors says what happens to permanent and retryable errors that leave the list: they are
	// logged, counted and settled. Without it they must not leave the list.
	DropErrors bool
	Lanes      Lanes
	Batch      Batch
}

// Middleware is one configured middleware of a pipeline.
type Middleware struct {
	Name   string
	Type   string
	Config middleware.Config
}

// Handler is a pipeline's configured handler.
type Handler struct {
	Type   string
	Config handlers.Config
}

// Lanes are a pipeline's bounds on waiting messages.
type Lanes struct {
	// Limit is how many messages of one key may be in the handler's own order (handlers.Enqueued),
	// and how many unstarted ones a stalled key may hold. 0: a sixteenth of the source's window,
	// at least 1.
	Limit int
	// Stall is how long the first message of a key may stand before further ones are refused; a
	// tenth of it if the key has more than twice Limit while half of the source's window is in
	// use.
	Stall time.Duration
	// AckDeadline is the longest that a message stays unsettled.
	AckDeadline time.Duration
}

// Batch is how messages are gathered for a handler that takes several at once.
type Batch struct {
	// Size is the most messages of a batch.
	Size int
	// Interval is the longest that a message waits for others.
	Interval time.Duration
}

// DefaultLanes are the bounds of a pipeline that says nothing. AckDeadline stays under RabbitMQ's
// consumer_timeout of 30 minutes.
var DefaultLanes = Lanes{Stall: 5 * time.Second, AckDeadline: 25 * time.Minute}

// DefaultBatch is the batch of a pipeline that says nothing.
var DefaultBatch = Batch{Size: 500, Interval: 20 * time.Millisecond}
