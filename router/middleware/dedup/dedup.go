// Package dedup is the middleware that handles a message once, however often it comes: a duplicate gets what the first
// produced.
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
		Summary: "Handles a message once, however often it comes.",
		Description: "Recognises a message by its id, within its pipeline and key (such as the device). A message that was handled before is not handled again: what it " +
			"produced then is sent again, with the same ids. The same id with another body is refused (`deliver`: rejected, \"id reused\"). While the first is " +
			"being handled, the second waits for it; if it fails, the second is handled. A message without an id passes.\n\n" +
			"An id is forgotten when `window` has passed since everything that it produced was confirmed, or when `max_entries` newer ones are confirmed; and if that was never " +
			"confirmed, since its message went away unacked and didn't come back, when 100,000 newer ones wait for it. A broker hands a message out again whose ack " +
			"was lost with the connection, so `window` stands still while the pipeline doesn't consume: an outage may be as long as it likes. " +
			"Messages that ended in `poison` are not remembered.\n\n" +
			"What it knows is in the ledger, which `[store]` keeps in memory or in a database.",
		Place:  middleware.PlaceDedup,
		Config: func() middleware.Config { c := defaults; return &c },
	})
}

var defaults = Config{Window: 10 * time.Minute, MaxEntries: 100_000, Begun: 10 * time.Minute}

const (
	// confirmRetry and confirmRetryMax bound the pauses between attempts to confirm.
	confirmRetry    = 100 * time.Millisecond
	confirmRetryMax = 5 * time.Second
)

// Config is the configuration of dedup.
type Config struct {
	Window     time.Duration `toml:"window" doc:"How long an id is remembered after everything that its message produced was confirmed; time without a consumer at the source doesn't count." min:"1s"`
	MaxEntries int           `toml:"max_entries" doc:"How many such ids a pipeline remembers at most." unit:"ids" min:"1"`
	Begun      time.Duration `toml:"begun_timeout" doc:"How long the source may take to deliver a message again that had begun, or whose result isn't published, before its result is published without it. Time in which the source couldn't deliver doesn't count." min:"1s"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.Window < time.Second {
		errs = append(errs, middleware.Invalid("window", "is %v, must be at least 1s", c.Window))
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
		claim, err := d.claim(ctx, key, body, msg)
		if err != nil {
			return nil, fmt.Errorf("reserving id %q: %w", key.ID, err)
		}
		switch claim.State {
		case middleware.ClaimDone:
			d.confirm(ctx, key)
			return restore(claim.Outputs), nil
		case middleware.ClaimReused:
			return handlers.Refuse(msg, handlers.ReasonIDReused)
		default:
			handle := next
			if r := handlers.Resumed(ctx); r != nil && r.Abandoned {
				handle = d.abandoned
			}
			return d.run(ctx, key, claim.Begun, handle, msg)
		}
	}
}

// claim makes a claim for a message, or for one that the ledger owns.
func (d *dedup) claim(ctx context.Context, key middleware.LedgerKey, body middleware.Digest, msg *message.Message) (middleware.Claim, error) {
	if handlers.Resumed(ctx) != nil {
		return d.env.Ledger.Resume(ctx, key)
	}
	return d.env.Ledger.Reserve(ctx, key, body, middleware.OriginOf(msg, handlers.Described(ctx)))
}

// abandoned takes the handler's place when a run was cut off and the source doesn't redeliver the
// message. If the handler can't answer for it, the message ends without a result: it has no
// payload, so that neither another attempt nor a topic for poison has a use for it.
func (d *dedup) abandoned(msg *message.Message) ([]*message.Message, error) {
	out, err := handlers.Refuse(msg, handlers.ReasonAbandoned)
	if err != nil && handlers.KindOf(err) != handlers.KindUnavailable {
		err = handlers.Drop(err)
	}
	return out, err
}

// run handles a message whose id is reserved, and of which so many runs began before.
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
	// A success counts even if the run was cancelled meanwhile: what has happened must not happen again.
	dropped := handlers.KindOf(err) == handlers.KindDrop && !handlers.Cancelled(ctx)
	if err != nil && !dropped {
		return out, err
	}
	if dropped {
		out = nil
	}
	kept = true
	if failed := d.env.Ledger.Commit(key, record(out)); failed != nil {
		return nil, fmt.Errorf("recording what id %q produced: %w", key.ID, failed)
	}
	d.confirm(ctx, key)
	return out, err
}

// journal is a reserved key's record, for the handler.
type journal struct {
	ledger middleware.Ledger
	key    middleware.LedgerKey
	msg    *message.Message
	// begun is how many runs began, before how many that were when this one did.
	begun, before int
	held          bool
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
	if err := j.ledger.Hold(j.key, held, h.PerKey, h.Total, record(outputs)); err != nil {
		return err
	}
	j.held = true
	handlers.OwnedByLedger(ctx, held)
	return nil
}

// confirm has the ledger record it when the outputs are confirmed, before the message is acked: of a message that was acked nobody would ever
// hear again.
func (d *dedup) confirm(ctx context.Context, key middleware.LedgerKey) {
	handlers.OnConfirmed(ctx, func(life context.Context) error {
		for pauses := backoff.New(confirmRetry, confirmRetryMax); ; {
			err := d.env.Ledger.Confirm(key, middleware.Retention{Window: d.Window, Limit: d.MaxEntries, Clock: d.env.Presence})
			if err == nil {
				return nil
			}
			if !backoff.Sleep(life, pauses.NextBackOff()) {
				return err
			}
		}
	})
}

// record makes of messages what the ledger keeps.
func record(msgs []*message.Message) []middleware.Output {
	outputs := make([]middleware.Output, len(msgs))
	for i, msg := range msgs {
		outputs[i] = middleware.Output{
			UUID: msg.UUID, Metadata: maps.Clone(msg.Metadata), Payload: msg.Payload, Destination: handlers.Destination(msg),
		}
	}
	return outputs
}

// restore makes messages of what the ledger kept.
func restore(outputs []middleware.Output) []*message.Message {
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
