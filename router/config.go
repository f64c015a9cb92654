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

// Config is the configuration of a [Host].
type Config struct {
	// Name is the host's name. It stays the same over restarts.
	Name string
	// ShutdownTimeout is how long a stop may take.
	ShutdownTimeout time.Duration
	Transports      []Transport
	Pipelines       []Pipeline
	// Inventory lists the devices; nil if there is no list.
	Inventory Inventory
	// Bans stores the bans of devices; nil if they end with the process.
	Bans BanStore
	// Ledger has the records of dedup and the held messages.
	Ledger middleware.Ledger
	// DeadLetters stores messages that couldn't be handled; nil if nothing stores them.
	DeadLetters handlers.DeadLetters
	// Memory has the budgets of bytes in memory. The ledger applies the budget Held, and the host
	// applies the others.
	Memory transports.Memory
	// HTTP makes the HTTP requests of handlers; nil uses the network.
	HTTP   http.RoundTripper
	Logger *slog.Logger
	// Registerer registers all metrics.
	Registerer prometheus.Registerer
	// Tracer makes the spans of messages; nil turns tracing off.
	Tracer trace.Tracer
	// Redact removes secrets from the errors of handlers and middleware, because their texts leave
	// the host in responses, dead letters and traces. nil removes none.
	Redact func(text string) string
	// Now returns the wall clock's time, for times in messages; nil means time.Now.
	Now func() time.Time
}

// Inventory is a list of devices. Each transport has its own view of it.
type Inventory interface {
	// View returns the devices of a transport, under the names that canonical returns for them.
	View(transport string, canonical func(device string) (string, error)) (device.Inventory, error)
}

// Transport is one configured transport.
type Transport struct {
	Name   string
	Type   string
	Config transports.Config
	// Protocol is the name of the protocol with which its devices talk, and Framing that of the
	// framing. Both are empty if the file names none. Only recordings use them.
	Protocol, Framing string
	// Connections is the transport's [transports.Env.Connections].
	Connections int
}

// Pipeline is one configured pipeline.
type Pipeline struct {
	Name string
	From transports.TopicRef
	// To may be empty. Then an output without a destination of its own goes only to the caller, as
	// the reply.
	To         transports.TopicRef
	Middleware []Middleware
	Handler    Handler
	// Key overrides the key that the handler describes: "payload.FIELD[.FIELD...]" of a JSON
	// payload, or "metadata.KEY".
	Key string
	// Competing says that other programs also consume from From, on purpose.
	Competing bool
	// DropErrors says what happens if a permanent or retryable error gets through all middleware.
	// If it is true, the message is dropped, and the error is logged and counted. If it is false,
	// the error pauses the pipeline.
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

// Lanes has the bounds of a pipeline's lanes.
type Lanes struct {
	// Limit is how many messages of one key may have a place in the handler's order
	// (handlers.Enqueued). It is also how many may wait while the key is stalled. 0 means a
	// sixteenth of the source's window, and at least 1.
	Limit int
	// Stall is the time after which a key is stalled if its first message hasn't moved. Then
	// further messages of the key are refused. If the key has more than twice Limit messages and
	// half of the source's window is in use, a tenth of Stall is enough.
	Stall time.Duration
	// AckDeadline is how long a message may be unsettled.
	AckDeadline time.Duration
}

// Batch has the bounds of the batches for a handler that handles several messages at once.
type Batch struct {
	// Size is how many messages a batch may have.
	Size int
	// Interval is how long a message may wait for others.
	Interval time.Duration
}

// DefaultLanes has the defaults of Lanes. AckDeadline is less than RabbitMQ's default
// consumer_timeout of 30 minutes.
var DefaultLanes = Lanes{Stall: 5 * time.Second, AckDeadline: 25 * time.Minute}

// DefaultBatch has the defaults of Batch.
var DefaultBatch = Batch{Size: 500, Interval: 20 * time.Millisecond}
