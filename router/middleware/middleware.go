// Package middleware is the contract of what wraps a pipeline's handler: poison, dedup, throttle, retry, timeout.
//
// A middleware is a plugin: its folder registers a [Plugin] in an init function. Middleware wraps in the order of the
// TOML list, outermost first, and every pipeline gets an instance of its own. It is tested with middlewaretest.
package middleware

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/transports"
)

// Middleware wraps a handler function. Optional: io.Closer, called when the pipeline has ended, and
// [Rememberer].
//
// Duties: errors of kind unavailable pass unchanged, and so does everything once
// handlers.Cancelled(msg.Context()) is true. A middleware that turns an error into success says so
// with [Swallowed]. Outside dedup, a message may have no payload: see
// [handlers.Resumption].Abandoned. A context put on the message is a child of the one found there,
// and is taken off again before returning.
type Middleware interface {
	Wrap(next message.HandlerFunc) message.HandlerFunc
}

// Rememberer is implemented by middleware that records its pipeline's messages in the ledger.
type Rememberer interface {
	// BegunTimeout is how long the source may take to redeliver a message. Then the router takes
	// it from the ledger.
	BegunTimeout() time.Duration
}

// Swallowed records that a middleware dealt with err and returned none, so that a caller who waits for the message learns of it.
func Swallowed(ctx context.Context, err error) {
	if s := handlers.ScopeFrom(ctx); s != nil {
		s.Swallowed(err)
	}
}

// Place is where in a list a middleware works. A list whose places go down is refused.
type Place int

// The places, outermost first. PlaceAny works everywhere.
const (
	PlaceAny Place = iota
	PlacePoison
	PlaceDedup
	PlaceThrottle
	PlaceRetry
	PlaceTimeout
)

// Config is a middleware's configuration: a pointer to a struct whose exported fields have toml and doc tags. An
// optional method Validate() error reports all problems, joined, each made with [Invalid].
type Config interface {
	// New builds an instance for one pipeline. It does no I/O.
	New(env Env) (Middleware, error)
}

// TopicRef names a topic.
type TopicRef = transports.TopicRef

// Env is what the host lends to a middleware.
type Env struct {
	// Pipeline is the name of the pipeline that the instance is built for.
	Pipeline string
	// Name is the middleware's name in the pipeline's list.
	Name string
	// From is the topic that the pipeline takes from, Handler the type of its handler.
	From    TopicRef
	Handler string
	// Logger carries the pipeline's and the middleware's name already.
	Logger *slog.Logger
	// Now is the wall clock for times in messages.
	Now func() time.Time
	// Registerer takes the middleware's metrics; it adds the label "pipeline" already.
	Registerer prometheus.Registerer
	// Publisher returns a publisher whose Publish blocks until confirmed, or until the message's context ends. The topic given
	// to Publish is ignored.
	Publisher func(ref TopicRef) (message.Publisher, error)
	// Ledger is the host's record of messages by id.
	Ledger Ledger
	// Presence is a clock that stands still while the pipeline has no consumer at its source: for how long it had one, in all.
	Presence func() time.Duration
}

// Plugin describes a middleware to the registry.
type Plugin struct {
	// Name is what the pipeline's list says.
	Name string
	// Summary is one line.
	Summary string
	// Description is Markdown for the middleware's page.
	Description string
	// Place is where in a list it belongs.
	Place Place
	// Swallows says that permanent and retryable errors never leave it.
	Swallows bool
	// Config returns a new configuration with every default set.
	Config func() Config
}

const kind = "middleware"

func init() { plugin.Define[Config](kind) }

// Register makes a middleware known. Call it from an init function. It panics if the name is taken.
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

// Ledger records messages by id, from reservation to confirmed outputs. It is safe for concurrent use.
//
// An error of kind unavailable means that the record can't be read or written now.
type Ledger interface {
	// Reserve claims key for one run. While another run holds it, Reserve waits for that run's Commit or Release, or
	// for ctx to end. The ledger keeps the origin of the last message that it reserves key for.
	Reserve(ctx context.Context, key LedgerKey, body Digest, from Origin) (Claim, error)
	// Begin records that the run that holds key is about to do what can't be undone, before it does it, and returns which attempt
	// that is: 1 for the first. With sync the record has reached the disk, otherwise it survives the process's end but perhaps not
	// the machine's. A ledger in memory survives nothing.
	Begin(key LedgerKey, sync bool) (attempt int, err error)
	// Retract takes the latest Begin back: nothing was done after all.
	Retract(key LedgerKey)
	// Commit records what the run produced and ends the reservation. If it returns an error of
	// kind unavailable, the ledger remembers the outputs and records them as soon as it can. Until
	// then Reserve and Resume return such errors, too. The record stays until it is confirmed,
	// unless there are far more such records than a source hands out unsettled messages.
	Commit(key LedgerKey, outputs []Output) error
	// Release ends the reservation, so that the id can be run again. What began and wasn't taken back stays on record.
	Release(key LedgerKey)
	// Confirm records that all outputs are confirmed, and for how long the record is kept from now on. A message that was held isn't owned any more.
	Confirm(key LedgerKey, keep Retention) error
	// Hold records that the ledger owns the message of the run that holds key, gives h its Order, and ends the reservation. outputs are what a
	// duplicate gets. What began is taken back. When it returns the record has reached the disk. The error is of kind handlers.ErrHoldFull if
	// there are perKey messages of the device or total of the pipeline; the reservation stays then. If it can't be recorded the message keeps its place in the
	// order for when it comes again. Of a message that is owned already only the reservation ends.
	Hold(key LedgerKey, h *handlers.Held, perKey, total int, outputs []Output) error
	// Resume claims a message that the ledger owns, or one that is Unconfirmed, for one run, as
	// Reserve does. The error is of kind drop if there is no such message any more.
	Resume(ctx context.Context, key LedgerKey) (Claim, error)
	// Owned returns what the ledger owns of a pipeline, oldest first, as soon as its records are there.
	Owned(ctx context.Context, pipeline string) ([]*handlers.Held, error)
	// Disown forgets a message that the ledger owns and no run holds: it ended in another way, as in a topic for poison.
	Disown(key LedgerKey)
	// Unconfirmed returns the messages of a pipeline that their source has to redeliver: a run of
	// them began or ended, and their outputs aren't confirmed. It leaves out those that a run
	// holds or the ledger owns.
	Unconfirmed(pipeline string) []Unconfirmed
	// Durable reports whether records outlive the process.
	Durable() bool
}

// Retention is how long the confirmed records of a pipeline are kept at least.
type Retention struct {
	// Period is how long a record is kept after its confirmation, on Clock.
	Period time.Duration
	// Limit is how many newer ones there may be; beyond it a record may be forgotten before Period is over.
	Limit int
	// Clock is [Env].Presence.
	Clock func() time.Duration
}

// LedgerKey names a record.
type LedgerKey struct {
	Pipeline string
	ID       string
	Device   string
}

// Unconfirmed is a message that its source has to redeliver.
type Unconfirmed struct {
	Key    LedgerKey
	Origin Origin
}

// Origin is what the ledger keeps of a message while its source has to redeliver it: enough to
// publish its outputs if the source doesn't.
type Origin struct {
	UUID          string `json:"uuid"`
	CorrelationID string `json:"correlation_id"`
	ReplyTo       string `json:"reply_to"`
	TraceParent   string `json:"traceparent"`
	TraceState    string `json:"tracestate"`
	// Keep is that of the message's [handlers.Description].
	Keep string `json:"keep"`
}

// OriginOf returns the origin of a message.
func OriginOf(msg *message.Message, d handlers.Description) Origin {
	m := msg.Metadata
	return Origin{
		UUID: msg.UUID, CorrelationID: m[transports.CorrelationID], ReplyTo: m[transports.ReplyTo],
		TraceParent: m[transports.TraceParent], TraceState: m[transports.TraceState], Keep: d.Keep,
	}
}

// Metadata returns those that the message had.
func (o *Origin) Metadata() message.Metadata {
	m := message.Metadata{}
	for key, value := range map[string]string{
		transports.CorrelationID: o.CorrelationID, transports.ReplyTo: o.ReplyTo,
		transports.TraceParent: o.TraceParent, transports.TraceState: o.TraceState,
	} {
		if value != "" {
			m[key] = value
		}
	}
	return m
}

// Digest is the SHA-256 of a message's payload.
type Digest [sha256.Size]byte

// Claim is what Reserve found.
type Claim struct {
	State ClaimState
	// Begun is how many earlier runs began to do what can't be undone, and may have done it, if State is ClaimReserved.
	Begun int
	// Outputs are what an earlier run produced, if State is ClaimDone.
	Outputs []Output
}

// ClaimState is the state of a claim.
type ClaimState int

const (
	// ClaimReserved: the id is new, or no run of it came to its end, and is the caller's now; Commit or Release must follow.
	ClaimReserved ClaimState = iota + 1
	// ClaimDone: the same message was handled before, or is held.
	ClaimDone
	// ClaimReused: another message had this id.
	ClaimReused
)

// Output is a produced message as the ledger keeps it.
type Output struct {
	UUID        string
	Metadata    map[string]string
	Payload     []byte
	Destination TopicRef
}
