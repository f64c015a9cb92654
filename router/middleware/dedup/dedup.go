// Package dedup is the middleware that handles each message once, however often it is delivered.
// A duplicate gets the outputs of the first run.
//
// All state is in the host's ledger, see [middleware.Ledger]. A run of a message with an id goes
// through these steps:
//
//  1. Reserve, or Resume for a held or an abandoned message: the run gets the id for itself, or
//     it gets the outputs of an earlier run.
//  2. The handler runs with a [handlers.Journal], through which it records Begin or Hold.
//  3. Commit records the outputs. Release ends a run that failed, so that a redelivery runs again.
//  4. Confirm follows when the outputs are published, and before the message is acked.
package dedup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/backoff"
	"github.com/pentrough/pentrough/router/middleware"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:    "dedup",
		Summary: "Handles each message once, however often it is delivered.",
		Description: "`dedup` identifies a message by its id, within its pipeline and its key (such as the device). It doesn't handle a duplicate. Instead it publishes the first message's outputs again, with " +
			"the same ids. It refuses an id that comes with another body (`deliver`: rejected, \"id reused\"). If a duplicate arrives while the first message is being handled, it waits for the " +
			"outcome; if the first one fails, the duplicate is handled. A message without an id passes.\n\n" +
			"`dedup` forgets an id when `retention` has passed since all outputs were confirmed, or when `max_entries` newer ids are confirmed. An id whose outputs were never confirmed is forgotten when " +
			"100,000 newer ids wait for their confirmation. The time of `retention` runs only while the pipeline consumes. The reason is that a broker redelivers a message whose ack was lost with the connection, and " +
			"this redelivery may come after a long outage. " +
			"Messages that ended in `poison` are not remembered.\n\n" +
			"The ids are in the ledger, which `[store]` keeps in memory or in a database.",
		Place:  middleware.PlaceDedup,
		Config: func() middleware.Config { c := defaults; return &c },
	})
}

var defaults = Config{Retention: 10 * time.Minute, MaxEntries: 100_000, Begun: 10 * time.Minute}

const (
	// confirmRetry and confirmRetryMax bound the pauses between attempts to confirm.
	confirmRetry    = 100 * time.Millisecond
	confirmRetryMax = 5 * time.Second
)

// Config is the configuration of dedup.
type Config struct {
	Retention  time.Duration `toml:"retention" renamed:"window" doc:"How long an id is remembered after all outputs of its message were confirmed. Time without a consumer at the source doesn't count." min:"1s"`
	MaxEntries int           `toml:"max_entries" doc:"How many confirmed ids a pipeline remembers at most." unit:"ids" min:"1"`
	Begun      time.Duration `toml:"begun_timeout" doc:"How long the source may take to redeliver a message that had begun, or whose result isn't published. Then the host publishes the result without a redelivery. Time in which the source couldn't deliver doesn't count." min:"1s"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.Retention < time.Second {
		errs = append(errs, middleware.Invalid("retention", "is %v, must be at least 1s", c.Retention))
	}
	if c.Begun < time.Second {
		errs = append(errs, middleware.Invalid("begun_timeout", "is %v, must be at least 1s", c.Begun))
	}
	if c.MaxEntries < 1 {
		errs = append(errs, middleware.Invalid("max_entries", "is %d, must be at least 1", c.MaxEntries))
	}
	return errors.Join(errs...)
}

// New builds the middleware.
func (c *Config) New(env middleware.Env) (middleware.Middleware, error) {
	return &dedup{*c, env}, nil
}

type dedup struct {
	Config
	env middleware.Env
}

// BegunTimeout implements middleware.Rememberer.
func (d *dedup) BegunTimeout() time.Duration { return d.Begun }

func (d *dedup) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		ctx := msg.Context()
		described := handlers.Described(ctx)
		if described.ID == "" {
			return next(msg)
		}
		key := middleware.LedgerKey{Pipeline: d.env.Pipeline, ID: described.ID, Device: described.Key}
		body := middleware.Digest(sha256.Sum256(msg.Payload))
		claim, err := d.claimID(ctx, key, body, msg)
		if err != nil {
			return nil, fmt.Errorf("reserving id %q: %w", key.ID, err)
		}
		switch claim.State {
		case middleware.ClaimDone:
			d.confirmOncePublished(ctx, key)
			return messagesOf(claim.Outputs), nil
		case middleware.ClaimReused:
			return handlers.Refuse(msg, handlers.ReasonIDReused)
		default:
			handle := next
			if r := handlers.Resumed(ctx); r != nil && r.Abandoned {
				handle = d.endAbandoned
			}
			return d.run(ctx, key, claim.Begun, handle, msg)
		}
	}
}

// claimID claims the id of a message for this run. A resumed message comes from the ledger itself,
// so claimID calls Resume for it.
func (d *dedup) claimID(ctx context.Context, key middleware.LedgerKey, body middleware.Digest, msg *message.Message) (middleware.Claim, error) {
	if handlers.Resumed(ctx) != nil {
		return d.env.Ledger.Resume(ctx, key)
	}
	return d.env.Ledger.Reserve(ctx, key, body, middleware.OriginOf(msg, handlers.Described(ctx)))
}

// endAbandoned takes the place of the handler for an abandoned message: an earlier run was
// interrupted, and the source doesn't redeliver the message. It asks the handler for a result that
// says so. If the handler has none, the message ends without a result: it has no payload, so
// neither a retry nor a dead letter would be of use.
func (d *dedup) endAbandoned(msg *message.Message) ([]*message.Message, error) {
	out, err := handlers.Refuse(msg, handlers.ReasonAbandoned)
	if err != nil && handlers.KindOf(err) != handlers.KindUnavailable {
		err = handlers.Drop(err)
	}
	return out, err
}

// run handles a message whose id is reserved. begun is how many earlier runs have begun.
func (d *dedup) run(ctx context.Context, key middleware.LedgerKey, begun int, next message.HandlerFunc, msg *message.Message) ([]*message.Message, error) {
	kept := false
	defer func() {
		if !kept {
			d.env.Ledger.Release(key)
		}
	}()
	j := &journal{ledger: d.env.Ledger, key: key, begun: begun, msg: msg, before: begun}
	msg.SetContext(handlers.WithJournal(ctx, j))
	out, err := next(msg)
	msg.SetContext(ctx)
	if j.held {
		kept = true
		return out, err
	}
	// A success counts even if the run was cancelled in the meantime: its effects must not be
	// repeated.
	dropped := handlers.KindOf(err) == handlers.KindDrop && !handlers.Cancelled(ctx)
	if err != nil && !dropped {
		return out, err
	}
	if dropped {
		out = nil
	}
	kept = true
	if failed := d.env.Ledger.Commit(key, outputsOf(out)); failed != nil {
		return nil, fmt.Errorf("recording the outputs of id %q: %w", key.ID, failed)
	}
	d.confirmOncePublished(ctx, key)
	return out, err
}

// journal gives the handler access to the ledger's record of the message that it handles. It
// implements [handlers.Journal].
type journal struct {
	ledger middleware.Ledger
	key    middleware.LedgerKey
	msg    *message.Message
	// begun is how many runs have begun, this one included. before is how many runs had begun when
	// this one started.
	begun, before int
	// held says that the handler held the message, so that the ledger has ended the reservation.
	held bool
}

func (j *journal) Begun() int { return j.begun }

func (j *journal) Begin(sync bool) error {
	attempt, err := j.ledger.Begin(j.key, sync)
	if err == nil {
		j.begun = attempt
	}
	return err
}

func (j *journal) Retract() {
	j.ledger.Retract(j.key)
	j.begun--
}

func (j *journal) Durable() bool { return j.ledger.Durable() }

func (j *journal) Hold(h handlers.Holding, outputs []*message.Message) error {
	if j.begun > j.before {
		j.Retract()
	}
	ctx := j.msg.Context()
	held := handlers.NewHeld(handlers.Described(ctx), j.msg, h)
	if err := j.ledger.Hold(j.key, held, h.PerKey, h.Total, outputsOf(outputs)); err != nil {
		return err
	}
	j.held = true
	handlers.OwnedByLedger(ctx, held)
	return nil
}

// confirmOncePublished confirms the record once the outputs are published, and before the message
// is acked. If the confirmation fails, the source redelivers the message. After the ack it
// wouldn't.
func (d *dedup) confirmOncePublished(ctx context.Context, key middleware.LedgerKey) {
	handlers.OnConfirmed(ctx, func(life context.Context) error {
		for pauses := backoff.New(confirmRetry, confirmRetryMax); ; {
			err := d.env.Ledger.Confirm(key, middleware.Retention{Period: d.Retention, Limit: d.MaxEntries, Clock: d.env.Presence})
			if err == nil {
				return nil
			}
			if !backoff.Sleep(life, pauses.NextBackOff()) {
				return err
			}
		}
	})
}

// outputsOf converts messages to the outputs that the ledger stores.
func outputsOf(msgs []*message.Message) []middleware.Output {
	outputs := make([]middleware.Output, len(msgs))
	for i, msg := range msgs {
		outputs[i] = middleware.Output{
			UUID: msg.UUID, Metadata: maps.Clone(msg.Metadata), Payload: msg.Payload, Destination: handlers.Destination(msg),
		}
	}
	return outputs
}

// messagesOf converts stored outputs back to messages.
func messagesOf(outputs []middleware.Output) []*message.Message {
	msgs := make([]*message.Message, len(outputs))
	for i, o := range outputs {
		msgs[i] = message.NewMessage(o.UUID, o.Payload)
		maps.Copy(msgs[i].Metadata, o.Metadata)
		if o.Destination != "" {
			handlers.SetDestination(msgs[i], o.Destination)
		}
	}
	return msgs
}
