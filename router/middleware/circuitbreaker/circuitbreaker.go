// Package circuitbreaker is the middleware that refuses the messages of a key for a while when its
// messages keep failing. So the outage of one device or tenant doesn't delay the others.
//
// Each key has a circuit, with the usual three states:
//
//	closed     messages are handled; failures is how many have failed in a row
//	open       failures has reached the limit; messages are refused until a time
//	half-open  that time has passed: one message is handled as a probe, the others are refused
//
// A closed circuit is stored only while failures is above 0. A probe that succeeds closes the
// circuit, which is then removed. A probe that fails opens the circuit again for the same time.
// After a probe without a verdict, such as a cancelled run, the circuit stays half-open for
// another probe.
//
// Invariants: beginRun and endRun come in pairs, also when the handler panics. A circuit has at
// most one probe. A run that began while its circuit was closed can't change a circuit that is
// open. There are at most max_keys circuits: a new one removes the one whose last failure is the
// oldest. One mutex, circuits.mu, guards everything; no run waits while it is locked.
package circuitbreaker

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:        "circuit-breaker",
		Summary:     "Refuses the messages of a key for a while when they keep failing.",
		Description: description,
		Place:       middleware.PlaceThrottle,
		Config:      func() middleware.Config { c := defaults; return &c },
	})
}

const description = "Each key, such as a device or a tenant, has its own breaker. When `failures` successive messages of the key have failed, the breaker opens: for the time `open` it refuses the key's messages without " +
	"trying them. Then it tries one message as a probe and still refuses the others. If the probe succeeds, the breaker closes and is forgotten. Otherwise it stays open for the same time again. The key is the one that orders " +
	"the pipeline's messages, or the one that `key` names; messages without a key share a breaker.\n\n" +
	"A refused message ends with a *retryable* error that says so: `poison` publishes the message to its topic, and you can replay it when the outage is over. An HTTP caller gets 500. Refused messages don't wait in the host. There they would " +
	"use up the source's window, such as the `prefetch` of a broker, until the messages of all other keys had to wait, too.\n\n" +
	"The breaker is outside of `retry`: a message has failed when its last attempt has failed, and a refused message isn't retried.\n\n" +
	"| a message ends with | it counts as |\n|---|---|\n" +
	"| success, a *drop* or a *permanent* error | a success: the other side has answered |\n" +
	"| a *retryable* error, a panic | a failure, if `counts` has `retryable` |\n" +
	"| an *unavailable* error | a failure, if `counts` has `unavailable` |\n" +
	"| a cancelled run, or an error that `counts` doesn't have | nothing |\n\n" +
	"An **unavailable** error pauses the pipeline until the same message succeeds, and no message goes to `poison`. With `counts = [\"retryable\", \"unavailable\"]` the pause ends after `failures` attempts: the message is refused " +
	"and goes to `poison`, and the pipeline goes on with other keys. Choose this if each key depends on something of its own that can be down. If all keys depend on the same thing, its outage would send message after message to " +
	"`poison`.\n\n" +
	"`deliver` reports the failures of a device as results, not as errors. So a breaker around it has no effect. If more than `max_keys` keys fail, the one whose last failure is the oldest is forgotten."

const (
	countRetryable   = "retryable"
	countUnavailable = "unavailable"
)

var defaults = Config{Failures: 5, Open: 30 * time.Second, Counts: []string{countRetryable}, MaxKeys: 10_000}

// Config is the configuration of circuit-breaker.
type Config struct {
	Failures int           `toml:"failures" doc:"How many successive messages of a key must fail until its breaker opens." unit:"messages" min:"1"`
	Open     time.Duration `toml:"open" doc:"How long the messages of the key are refused before one is tried." min:"1ms"`
	Counts   []string      `toml:"counts" doc:"Which kinds of errors are failures." enum:"retryable,unavailable" min:"1"`
	Key      string        `toml:"key" doc:"The key that has its own breaker: payload.FIELD of a JSON payload, or metadata.KEY. Default: the key that orders the pipeline's messages." example:"\"metadata.header.X-Tenant\""`
	MaxKeys  int           `toml:"max_keys" doc:"The most failing keys that are remembered." unit:"keys" min:"1" max:"10000000"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.Failures < 1 {
		errs = append(errs, middleware.Invalid("failures", "is %d, must be at least 1", c.Failures))
	}
	if c.Open < time.Millisecond {
		errs = append(errs, middleware.Invalid("open", "is %v, must be at least 1ms", c.Open))
	}
	if len(c.Counts) == 0 || slices.ContainsFunc(c.Counts, func(k string) bool { return k != countRetryable && k != countUnavailable }) {
		errs = append(errs, middleware.Invalid("counts", "is %q, must be retryable, unavailable or both", c.Counts))
	}
	if err := middleware.Key(c.Key).Validate(); err != nil {
		errs = append(errs, middleware.Invalid("key", "%q isn't a key: %v", c.Key, err))
	}
	if c.MaxKeys < 1 {
		errs = append(errs, middleware.Invalid("max_keys", "is %d, must be at least 1", c.MaxKeys))
	}
	return errors.Join(errs...)
}

// New builds the middleware.
func (c *Config) New(env middleware.Env) (middleware.Middleware, error) {
	b := &breaker{env: env, key: middleware.Key(c.Key), counts: c.Counts, circuits: newCircuits(c), metrics: newMetrics()}
	if err := b.metrics.register(env.Registerer, b.circuits); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return b, nil
}

type breaker struct {
	env      middleware.Env
	key      middleware.Key
	counts   []string
	circuits *circuits
	metrics  metrics
}

func (b *breaker) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		ctx := msg.Context()
		key, err := b.key.Of(msg)
		if err != nil {
			key = "" // the message can't be read; the handler that reads it will fail
		}
		try, wait := b.circuits.beginRun(key, time.Now())
		if try == nil {
			b.metrics.refused.Inc()
			return nil, handlers.RetryAfter(fmt.Errorf("not tried: the circuit breaker of key %q is open", key), wait)
		}
		ended := failed // unless next returns: a panic is a failure
		defer func() {
			change := b.circuits.endRun(try, ended, time.Now())
			log := transports.Traced(b.env.Logger, msg.Metadata)
			switch change {
			case opened:
				b.metrics.opened.Inc()
				log.Warn("circuit breaker opened; messages of its key are refused", "key", key, "err", err)
			case closed:
				log.Info("circuit breaker closed", "key", key)
			}
		}()
		out, err = next(msg)
		ended = b.outcomeOf(err, handlers.Cancelled(ctx))
		return out, err
	}
}

// outcomeOf returns what the error of a run says about its key.
func (b *breaker) outcomeOf(err error, cancelled bool) outcome {
	if err == nil {
		return succeeded
	}
	kind := handlers.KindOf(err)
	switch {
	case cancelled:
		return undecided
	case kind == handlers.KindRetryable && slices.Contains(b.counts, countRetryable),
		kind == handlers.KindUnavailable && slices.Contains(b.counts, countUnavailable):
		return failed
	case kind == handlers.KindPermanent, kind == handlers.KindDrop:
		return succeeded
	default:
		return undecided
	}
}
