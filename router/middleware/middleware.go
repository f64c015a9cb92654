// Package middleware is the contract of the plugins that wrap a pipeline's handler, such as
// poison, dedup, throttle, retry and timeout.
//
// A middleware is a plugin: its folder registers a [Plugin] in an init function. The first
// middleware of the TOML list is the outermost one. Each pipeline gets its own instance. Package
// middlewaretest tests a middleware against this contract.
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

// Middleware wraps a handler function. It may also implement io.Closer, which the host calls when
// the pipeline has ended, and [Rememberer].
//
// A middleware has these duties:
//
//   - It returns errors of kind unavailable unchanged. Once handlers.Cancelled(msg.Context()) is
//     true, it returns every result unchanged.
//   - If it turns an error into a success, it calls [Swallowed].
//   - A context that it sets on the message is a child of the context that it found. It sets the
//     old one again before it returns.
//   - If it is outside of dedup, it accepts messages without a payload: see
//     [handlers.Resumption].Abandoned.
type Middleware interface {
	Wrap(next message.HandlerFunc) message.HandlerFunc
}

// Rememberer is a middleware that records its pipeline's messages in the ledger.
type Rememberer interface {
	// BegunTimeout returns how long the source may take to redeliver a message. After that time
	// the router ends the message without a redelivery, from its record in the ledger.
	BegunTimeout() time.Duration
}

// Swallowed records that a middleware handled err and returned no error. A caller that waits for
// the message gets err.
func Swallowed(ctx context.Context, err error) {
	if s := handlers.ScopeFrom(ctx); s != nil {
		s.Swallowed(err)
	}
}

// Place is the position of a middleware in a list. The host refuses a list that isn't in the order
// of the places.
type Place int

// The places, outermost first. A middleware with PlaceAny may be anywhere in the list.
const (
	PlaceAny Place = iota
	PlacePoison
	PlaceDedup
	PlaceThrottle
	PlaceRetry
	PlaceTimeout
)

// Config is a middleware's configuration: a pointer to a struct whose exported fields have toml
// and doc tags. It may have a method Validate() error, which returns all problems, joined.
// [Invalid] makes each of them.
type Config interface {
	// New builds an instance for one pipeline. It does no I/O.
	New(env Env) (Middleware, error)
}

// TopicRef names a topic.
type TopicRef = transports.TopicRef

// Env is what the host provides to a middleware.
type Env struct {
	// Pipeline is the name of the instance's pipeline.
	Pipeline string
	// Name is the middleware's name in the pipeline's list.
	Name string
	// From is the pipeline's source. Handler is the type of its handler.
	From    TopicRef
	Handler string
	// Logger adds the names of the pipeline and of the middleware to each line.
	Logger *slog.Logger
	// Now returns the wall clock's time, for times in messages.
	Now func() time.Time
	// Registerer registers the middleware's metrics. It adds the label "pipeline".
	Registerer prometheus.Registerer
	// Publisher returns a publisher for a topic. Its Publish blocks until the message is confirmed
	// or its context ends, and ignores the topic in its arguments.
	Publisher func(ref TopicRef) (message.Publisher, error)
	// Ledger is the host's record of messages by id.
	Ledger Ledger
	// Presence returns for how long the pipeline has had a consumer at its source, in total. This
	// time stands still while there is no consumer.
	Presence func() time.Duration
}

// Plugin describes a middleware to the registry.
type Plugin struct {
	// Name is the plugin's name in a pipeline's list.
	Name string
	// Summary describes the middleware in one line.
	Summary string
	// Description is Markdown for the middleware's page.
	Description string
	// Place is the middleware's position in a list.
	Place Place
	// Swallows says that the middleware never returns permanent and retryable errors.
	Swallows bool
	// Config returns a new configuration with every default set.
	Config func() Config
}

const kind = "middleware"

func init() { plugin.Define[Config](kind) }

// Register adds a middleware to the registry. Init functions call it. It panics if the name is
// taken.
func Register(p Plugin) {
	plugin.Register(kind, plugin.Info{
		Name: p.Name, Summary: p.Summary, Description: p.Description, Extra: p,
		New: func() any { return p.Config() },
	})
}

// Invalid returns an error of Validate about one field. field is its TOML key.
func Invalid(field, format string, args ...any) error {
	return plugin.Invalid(field, format, args...)
}

// Ledger records messages by id, from the reservation of the id until all outputs are confirmed.
// It is safe for concurrent use. Package internal/ledger describes the states of a record.
//
// An error of kind unavailable means that the ledger can't read or write the record now.
type Ledger interface {
	// Reserve claims key for one run. While another run has it, Reserve waits for that run's
	// Commit, Hold or Release, or for the end of ctx. The ledger keeps the origin of the last
	// message for which it reserved key.
	Reserve(ctx context.Context, key LedgerKey, body Digest, from Origin) (Claim, error)
	// Begin records that the run that has key is about to do something that can't be undone, such
	// as writing to a device. It returns the number of the attempt, from 1. With sync the record
	// has reached the disk when Begin returns. Without sync it survives the end of the process,
	// but perhaps not a crash of the machine. The records of a ledger in memory end with the
	// process.
	Begin(key LedgerKey, sync bool) (attempt int, err error)
	// Retract undoes the latest Begin, since the run did nothing after all.
	Retract(key LedgerKey)
	// Commit records the outputs of the run and ends the reservation. If it returns an error of
	// kind unavailable, the ledger remembers the outputs and records them as soon as it can. Until
	// then Reserve and Resume return such errors, too. The ledger keeps the record until it is
	// confirmed. But if there are more unconfirmed records than a source can have unsettled
	// messages, the ledger may forget the oldest one.
	Commit(key LedgerKey, outputs []Output) error
	// Release ends the reservation without an outcome, so that the message can run again. The
	// ledger still knows how many runs have begun.
	Release(key LedgerKey)
	// Confirm records that all outputs are confirmed. keep says for how long the ledger keeps the
	// record from now on. The ledger no longer owns the message.
	Confirm(key LedgerKey, keep Retention) error
	// Hold makes the ledger the owner of the message h of the run that has key, sets h.Order, and
	// ends the reservation. The record has reached the disk when Hold returns. Until the message
	// is done, its duplicates get the given outputs. If the ledger owns the message already, Hold
	// only ends the reservation.
	//
	// The error is handlers.ErrHoldFull if the ledger owns perKey messages of the device or total
	// messages of the pipeline. After any error the reservation stays. If the record couldn't be
	// written, a redelivered message still gets the same Order.
	Hold(key LedgerKey, h *handlers.Held, perKey, total int, outputs []Output) error
	// Resume claims a message for one run, as Reserve does. The message must be one that the
	// ledger owns, or one of Unconfirmed. If the message is neither any more, the error is of kind
	// drop.
	Resume(ctx context.Context, key LedgerKey) (Claim, error)
	// Owned waits until the ledger has read its records, and returns the messages of a pipeline
	// that it owns, oldest first.
	Owned(ctx context.Context, pipeline string) ([]*handlers.Held, error)
	// Disown forgets a message that the ledger owns and no run has. The message has ended without
	// Confirm: for example, poison has published it to its topic.
	Disown(key LedgerKey)
	// Unconfirmed returns the messages of a pipeline that their source has to redeliver. They have
	// begun or are done, and their outputs aren't confirmed. Unconfirmed leaves out messages that
	// a run has or the ledger owns.
	Unconfirmed(pipeline string) []Unconfirmed
	// Durable reports whether records outlive the process.
	Durable() bool
}

// Retention says for how long the ledger keeps the confirmed records of a pipeline.
type Retention struct {
	// Period is how long the ledger keeps a record after its confirmation, by Clock.
	Period time.Duration
	// Limit is how many newer confirmed records there may be. If there are more, the ledger may
	// forget a record before Period is over.
	Limit int
	// Clock is [Env].Presence.
	Clock func() time.Duration
}

// LedgerKey identifies a record.
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

// Origin has the parts of a message that the ledger keeps while the source may have to redeliver
// the message. If the source doesn't redeliver it, these parts are enough to publish its outputs.
type Origin struct {
	UUID          string `json:"uuid"`
	CorrelationID string `json:"correlation_id"`
	ReplyTo       string `json:"reply_to"`
	TraceParent   string `json:"traceparent"`
	TraceState    string `json:"tracestate"`
	// Keep is Keep of the message's [handlers.Description].
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

// Metadata returns the metadata of the message that the origin has.
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

// Claim is the result of Reserve and Resume.
type Claim struct {
	State ClaimState
	// Begun is how many earlier runs have begun, if State is ClaimReserved. Each of them may have
	// done something that can't be undone.
	Begun int
	// Outputs are those of an earlier run, if State is ClaimDone.
	Outputs []Output
}

// ClaimState is the state of a claim.
type ClaimState int

const (
	// ClaimReserved: the id is new, or no run of it has an outcome. The caller has reserved the
	// id, and must call Commit, Hold or Release.
	ClaimReserved ClaimState = iota + 1
	// ClaimDone: the same message is done, or the ledger owns it.
	ClaimDone
	// ClaimReused: another message has this id.
	ClaimReused
)

// Output is a message that a handler produced, as the ledger keeps it.
type Output struct {
	UUID        string
	Metadata    map[string]string
	Payload     []byte
	Destination TopicRef
}
