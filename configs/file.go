package configs

import (
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
	_ "github.com/pentrough/pentrough/transports/codec" // defines the kind "codec"
)

// hostTable is [host] as it is written.
type hostTable struct {
	Name            string        `toml:"name" doc:"The host's name, stable over restarts. Default: the machine's host name." example:"\"gateway-1\""`
	Admin           string        `toml:"admin" doc:"The address of the admin listener: health, metrics, API. An empty string turns it off." example:"\"127.0.0.1:8222\""`
	AdminHosts      []string      `toml:"admin_hosts" doc:"Further host names by which the admin listener may be called, such as a proxy's." example:"[\"gateway.example.com\"]"`
	ShutdownTimeout time.Duration `toml:"shutdown_timeout" doc:"The longest that a stop takes. What still runs in its last quarter, 6 s at most, is cancelled." min:"0s" example:"\"30s\""`
	Memory          memoryTable   `toml:"memory" doc:"How many bytes the host has in memory, over all transports and pipelines."`
	Log             logTable      `toml:"log" doc:"What the host logs, and how."`
}

// memoryTable has a budget for each kind of what takes memory.
type memoryTable struct {
	Bodies   int `toml:"bodies" doc:"Bodies of HTTP requests, as they arrive and until they are answered; a caller beyond it gets 503. 0 is no limit." unit:"bytes" min:"0" example:"67108864"`
	InFlight int `toml:"in_flight" doc:"Messages that pipelines have and that aren't settled, with what they produced; beyond it consumers take no more, and callers get 503. 0 is no limit." unit:"bytes" min:"0" example:"134217728"`
	Waiting  int `toml:"waiting" doc:"Messages that wait inside the host: data of devices and topics of memory. Beyond it devices are read no further, and publishing to memory waits. 0 is no limit." unit:"bytes" min:"0" example:"67108864"`
	Held     int `toml:"held" doc:"Commands that are held; further ones are busy. 0 is no limit." unit:"bytes" min:"0" example:"134217728"`
}

func (m *memoryTable) budgets() transports.Memory {
	return transports.Memory{
		Bodies: transports.NewBudget(m.Bodies), InFlight: transports.NewBudget(m.InFlight),
		Waiting: transports.NewBudget(m.Waiting), Held: transports.NewBudget(m.Held),
	}
}

type logTable struct {
	Level  string `toml:"level" doc:"The least that is logged." enum:"debug,info,warn,error" example:"\"info\""`
	Format string `toml:"format" doc:"How a line looks." enum:"text,json" example:"\"text\""`
}

var hostDefaults = hostTable{
	Admin:           "127.0.0.1:8222",
	ShutdownTimeout: 30 * time.Second,
	Memory:          memoryTable{Bodies: 64 << 20, InFlight: 128 << 20, Waiting: 64 << 20, Held: 128 << 20},
	Log:             logTable{Level: "info", Format: "text"},
}

// storeTable is [store] as it is written.
type storeTable struct {
	Type string            `toml:"type" doc:"Where the ledger is kept: memory forgets it when the process ends." enum:"memory,sqlite,postgres" example:"\"sqlite\""`
	Path string            `toml:"path" doc:"The database file of a sqlite store, relative to the working directory. Default: pentrough.db." example:"\"/var/lib/pentrough/ledger.db\""`
	URL  transports.Secret `toml:"url" schemes:"postgres,postgresql" doc:"The database of a postgres store." example:"\"postgres://pentrough@127.0.0.1/pentrough\""`
}

// tracingTable is [tracing] as it is written.
type tracingTable struct {
	Endpoint string                       `toml:"endpoint" schemes:"http,https" doc:"The collector's base URL, for OTLP over HTTP. An empty string turns tracing off, as leaving out the table does." example:"\"http://127.0.0.1:4318\""`
	Sample   float64                      `toml:"sample" doc:"The share of traces that are recorded among those that begin here. A message that brings a trace is recorded if its sender says so." min:"0" max:"1" example:"0.1"`
	Service  string                       `toml:"service" doc:"The service's name in the traces. The host's name is its instance." example:"\"gateway\""`
	Headers  map[string]transports.Secret `toml:"headers" doc:"Headers for the collector, such as an authorization." example:"{ authorization = \"Bearer ${file:/run/secrets/otlp}\" }"`
}

var tracingDefaults = tracingTable{Sample: 1, Service: "pentrough"}

// MemoryStore is the type of a store that ends with the process.
const MemoryStore = "memory"

// The other types of stores.
const (
	sqliteStore   = "sqlite"
	postgresStore = "postgres"
)

var storeDefaults = storeTable{Type: MemoryStore}

// defaultLedger is the file of a sqlite store that names none.
const defaultLedger = "pentrough.db"

// pipelineTable is [pipeline.NAME] as it is written.
type pipelineTable struct {
	From        transports.TopicRef `toml:"from" required:"true" doc:"Where messages come from, as transport:topic." example:"\"broker:commands\""`
	To          transports.TopicRef `toml:"to" doc:"Where produced messages go. Without it they exist only as the reply." example:"\"broker:results\""`
	Middleware  []middleware.Config `toml:"middleware" doc:"What wraps the handler, outermost first: names, or tables with a type." example:"[\"poison\", \"dedup\", \"retry\"]"`
	Handler     handlers.Config     `toml:"handler" doc:"What happens to a message: a name, or a table with a type. Default: passthrough." example:"\"deliver\""`
	Key         string              `toml:"key" doc:"What orders messages instead of the key that the handler describes: payload.FIELD or metadata.KEY." example:"\"payload.address\""`
	OnError     string              `toml:"on_error" doc:"What happens to errors that leave the list. Default: poison where a broker is the source, else drop: logged, counted and settled." enum:"poison,drop" example:"\"drop\""`
	Competing   bool                `toml:"competing" doc:"This pipeline shares its source's queue on purpose, with others that say the same or with other hosts."`
	LaneLimit   int                 `toml:"lane_limit" doc:"How many messages of one key may wait while the first doesn't move. Default: a sixteenth of the source's window." unit:"messages" min:"1" example:"62"`
	Stall       time.Duration       `toml:"stall" doc:"How long the first message of a key may stand before further ones are refused; a tenth of it if more than twice lane_limit wait while half of the source's window is in use." min:"1ms" example:"\"5s\""`
	AckDeadline time.Duration       `toml:"ack_deadline" doc:"The longest that a message stays unsettled; keep it below the broker's own limit." min:"1s" example:"\"25m\""`
	Batch       batchTable          `toml:"batch" doc:"How messages are gathered for a handler that takes several at once."`
}

type batchTable struct {
	Size     int           `toml:"size" doc:"The most messages of a batch." unit:"messages" min:"1" max:"100000" example:"100"`
	Interval time.Duration `toml:"interval" doc:"The longest that a message waits for others." min:"0s" example:"\"20ms\""`
}

var pipelineDefaults = pipelineTable{
	Stall:       router.DefaultLanes.Stall,
	AckDeadline: router.DefaultLanes.AckDeadline,
	Batch:       batchTable{Size: router.DefaultBatch.Size, Interval: router.DefaultBatch.Interval},
}

// defaultHandler is what a pipeline without a handler does.
const defaultHandler = "passthrough"

// kinds are the sections of named plugin tables, in the order of their decoding.
var kinds = []string{"transport", "codec", "middleware", "handler"}

// The other sections.
const (
	hostSection      = "host"
	storeSection     = "store"
	tracingSection   = "tracing"
	inventorySection = "inventory"
	pipelineSection  = "pipeline"
)

// plainSections are tables, and not tables by name.
var plainSections = []string{hostSection, storeSection, tracingSection, inventorySection}

var sections = slices.Concat(plainSections, []string{pipelineSection, testsSection}, kinds)
