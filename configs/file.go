package configs

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
	_ "github.com/pentrough/pentrough/transports/codec"    // defines the kind "codec"
	_ "github.com/pentrough/pentrough/transports/protocol" // defines the kind "protocol"
)

// hostTable is the [host] table in TOML.
type hostTable struct {
	Name            string        `toml:"name" doc:"The host's name, stable over restarts. Default: the machine's host name." example:"\"gateway-1\""`
	Admin           string        `toml:"admin" doc:"The address of the admin listener: health, metrics, API. An empty string turns it off." example:"\"127.0.0.1:8222\""`
	AdminHosts      []string      `toml:"admin_hosts" doc:"Additional host names that requests to the admin listener may use, such as the name of a proxy." example:"[\"gateway.example.com\"]"`
	ShutdownTimeout time.Duration `toml:"shutdown_timeout" doc:"The longest time that a stop may take. When a quarter of this time is left, or 6 s if that is less, the host cancels runs that are still active." min:"0s" example:"\"30s\""`
	Memory          memoryTable   `toml:"memory" doc:"Limits for the memory of messages, over all transports and pipelines."`
	Log             logTable      `toml:"log" doc:"What the host logs, and how."`
}

// memoryTable has a limit for each use of memory.
type memoryTable struct {
	Bodies   int `toml:"bodies" doc:"Bodies of HTTP requests that aren't answered yet. Above the limit, callers get 503. 0 means no limit." unit:"bytes" min:"0" example:"67108864"`
	InFlight int `toml:"in_flight" doc:"Unsettled messages of pipelines, and their outputs. Above the limit, consumers take no more messages, and callers get 503. 0 means no limit." unit:"bytes" min:"0" example:"134217728"`
	Waiting  int `toml:"waiting" doc:"Messages that wait inside the host: data of devices, and messages in memory topics. Above the limit, the host doesn't read from devices, and publishing to a memory topic waits. 0 means no limit." unit:"bytes" min:"0" example:"67108864"`
	Held     int `toml:"held" doc:"Held commands. Above the limit, a command isn't held, and its result is busy. 0 means no limit." unit:"bytes" min:"0" example:"134217728"`
}

func (m *memoryTable) budgets() transports.Memory {
	return transports.Memory{
		Bodies: transports.NewBudget(m.Bodies), InFlight: transports.NewBudget(m.InFlight),
		Waiting: transports.NewBudget(m.Waiting), Held: transports.NewBudget(m.Held),
	}
}

type logTable struct {
	Level  string `toml:"level" doc:"The lowest level that is logged." enum:"debug,info,warn,error" example:"\"info\""`
	Format string `toml:"format" doc:"The format of a line." enum:"text,json" example:"\"text\""`
}

var hostDefaults = hostTable{
	Admin:           "127.0.0.1:8222",
	ShutdownTimeout: 30 * time.Second,
	Memory:          memoryTable{Bodies: 64 << 20, InFlight: 128 << 20, Waiting: 64 << 20, Held: 128 << 20},
	Log:             logTable{Level: "info", Format: "text"},
}

// storeTable is the [store] table in TOML.
type storeTable struct {
	Type string            `toml:"type" doc:"Where the host keeps the ledger. With memory, the ledger is lost when the host ends." enum:"memory,sqlite,postgres" example:"\"sqlite\""`
	Path string            `toml:"path" doc:"The database file of a sqlite store, relative to the working directory. Default: pentrough.db." example:"\"/var/lib/pentrough/ledger.db\""`
	URL  transports.Secret `toml:"url" schemes:"postgres,postgresql" doc:"The database of a postgres store." example:"\"postgres://pentrough@127.0.0.1/pentrough\""`
}

// tracingTable is the [tracing] table in TOML.
type tracingTable struct {
	Endpoint string                       `toml:"endpoint" schemes:"http,https" doc:"The collector's base URL, for OTLP over HTTP. An empty string turns tracing off. Without the table, tracing is off, too." example:"\"http://127.0.0.1:4318\""`
	Sample   float64                      `toml:"sample" doc:"Which share of the traces that begin in this host is recorded. If a message arrives with a trace, the sender of the message decides whether the trace is recorded." min:"0" max:"1" example:"0.1"`
	Service  string                       `toml:"service" doc:"The name of the service in traces. The name of the host is its instance." example:"\"gateway\""`
	Headers  map[string]transports.Secret `toml:"headers" doc:"Headers for requests to the collector, such as authorization." example:"{ authorization = \"Bearer ${file:/run/secrets/otlp}\" }"`
}

var tracingDefaults = tracingTable{Sample: 1, Service: "pentrough"}

// MemoryStore is the type of a store in memory. It is lost when the process ends.
const MemoryStore = "memory"

// The other types of stores.
const (
	sqliteStore   = "sqlite"
	postgresStore = "postgres"
)

var storeDefaults = storeTable{Type: MemoryStore}

// defaultLedger is the default file of a sqlite store.
const defaultLedger = "pentrough.db"

// pipelineTable is a [pipeline.NAME] table in TOML.
type pipelineTable struct {
	From        transports.TopicRef `toml:"from" required:"true" doc:"The source: the topic to consume, as transport:topic." example:"\"broker:commands\""`
	To          transports.TopicRef `toml:"to" doc:"The destination: the topic to publish to, as transport:topic. Without it, only a caller who waits for a reply gets the produced messages." example:"\"broker:results\""`
	Middleware  []middleware.Config `toml:"middleware" doc:"The middleware around the handler, the outermost first: names, or tables with a type." example:"[\"poison\", \"dedup\", \"retry\"]"`
	Handler     handlers.Config     `toml:"handler" doc:"The handler of the messages: a name, or a table with a type. Default: passthrough." example:"\"deliver\""`
	Key         string              `toml:"key" doc:"The key by which messages stay in order: payload.FIELD or metadata.KEY. Default: the key of the handler." example:"\"payload.address\""`
	OnError     string              `toml:"on_error" doc:"What the host does with a message if the middleware returns an error. drop logs, counts and settles it; poison requires a middleware that takes failed messages. Default: poison if the source is a broker, otherwise drop." enum:"poison,drop" example:"\"drop\""`
	Competing   bool                `toml:"competing" doc:"Allows this pipeline to share the queue of its source with other pipelines or hosts, which must set it too."`
	LaneLimit   int                 `toml:"lane_limit" doc:"How many messages of one key may wait while the key's lane is stalled. Default: a sixteenth of the source's window." unit:"messages" min:"1" example:"62"`
	Stall       time.Duration       `toml:"stall" doc:"The lane of a key is stalled after this time without progress. Then the host refuses messages above lane_limit. If more than twice lane_limit messages wait and half of the source's window is in use, a tenth of this time is enough." min:"1ms" example:"\"5s\""`
	AckDeadline time.Duration       `toml:"ack_deadline" doc:"The longest time that a message may stay unsettled. Keep it below the broker's own limit." min:"1s" example:"\"25m\""`
	Batch       batchTable          `toml:"batch" doc:"How the host gathers messages for a handler that takes several at once."`
}

type batchTable struct {
	Size     int           `toml:"size" doc:"The largest number of messages in a batch." unit:"messages" min:"1" max:"100000" example:"100"`
	Interval time.Duration `toml:"interval" doc:"The longest time that a message waits for others." min:"0s" example:"\"20ms\""`
}

var pipelineDefaults = pipelineTable{
	Stall:       router.DefaultLanes.Stall,
	AckDeadline: router.DefaultLanes.AckDeadline,
	Batch:       batchTable{Size: router.DefaultBatch.Size, Interval: router.DefaultBatch.Interval},
}

// defaultHandler is the handler of a pipeline that names none.
const defaultHandler = "passthrough"

// kinds has the sections of named plugin tables, in the order in which they are decoded.
var kinds = []string{"transport", "protocol", "codec", "middleware", "handler"}

// The other sections.
const (
	hostSection      = "host"
	storeSection     = "store"
	tracingSection   = "tracing"
	inventorySection = "inventory"
	pipelineSection  = "pipeline"
)

// plainSections are single tables, unlike sections with a table for each name.
var plainSections = []string{hostSection, storeSection, tracingSection, inventorySection}

var sections = slices.Concat(plainSections, []string{pipelineSection, testsSection}, kinds)
