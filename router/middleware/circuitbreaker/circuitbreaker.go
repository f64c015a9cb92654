// Package circuitbreaker is the middleware that stops trying messages of a key whose messages keep failing, for a while: the outage of
// one device or tenant doesn't hold up the others.
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
		Summary:     "Gives up messages of a key at once while its messages keep failing.",
		Description: description,
		Place:       middleware.PlaceThrottle,
		Config:      func() middleware.Config { c := defaults; return &c },
	})
}

const description = "Every key, such as a device or a tenant, has a breaker of its own. When `failures` messages of it in a row have failed, the breaker opens: for the time `open`, messages of that key are given up at once, without " +
	"trying. Then one is tried as a probe, and the others are still given up; if it works the breaker is closed and forgotten, otherwise it is open for the same time again. The key is the one that orders the pipeline's " +
	"messages, or what `key` names; messages without one share a breaker.\n\n" +
	"What is given up is a *retryable* error that says so: `poison` keeps the message, from where it can be replayed when the trouble is over, and a caller over HTTP gets 500. It doesn't wait in the host: there it would fill " +
	"what the source hands out at a time, such as the `prefetch` of a broker, until the messages of all other keys waited behind it.\n\n" +
	"It stands outside of `retry`: a message has failed when its last attempt has, and one that is given up isn't tried again.\n\n" +
	"| a message ends with | that counts as |\n|---|---|\n" +
	"| success, a *drop* or a *permanent* error | working: whoever was asked has answered |\n" +
	"| a *retryable* error, a panic | a failure, if `counts` has `retryable` |\n" +
	"| an *unavailable* error | a failure, if `counts` has `unavailable` |\n" +
	"| a cancelled run, and what `counts` doesn't have | nothing |\n\n" +
	"**Unavailable** pauses the pipeline until the same message works, and poisons nothing. With `counts = [\"retryable\", \"unavailable\"]` that ends after `failures` tries: the message is given up and goes to `poison`, and the " +
	"pipeline goes on with other keys. That is right where each key has something of its own that can be down; where all keys need the same thing, its outage would put message after message into `poison`.\n\n" +
	"`deliver` makes results of what happens with a device, not errors; a breaker around it does nothing. With more than `max_keys` that fail, the one whose last failure is longest ago is forgotten."

const (
	countRetryable   = "retryable"
	countUnavailable = "unavailable"
)

var defaults = Config{Failures: 5, Open: 30 * time.Second, Counts: []string{countRetryable}, MaxKeys: 10_000}

// Config is the configuration of circuit-breaker.
type Config struct {
	Failures int           `toml:"failures" doc:"How many messages of a key in a row must fail to open its breaker." unit:"messages" min:"1"`
	Open     time.Duration `toml:"open" doc:"How long messages of the key are given up before one is tried." min:"1ms"`
	Counts   []string      `toml:"counts" doc:"Which kinds of errors are failures." enum:"retryable,unavailable" min:"1"`
	Key      string        `toml:"key" doc:"What has a breaker of its own: payload.FIELD of a JSON payload, or metadata.KEY. Default: the key that orders the pipeline's messages." example:"\"metadata.header.X-Tenant\""`
	MaxKeys  int           `toml:"max_keys" doc:"How many keys that fail are remembered at most." unit:"keys" min:"1" max:"10000000"`
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
		errs = append(errs, middleware.Invalid("key", "%q is no key: %v", c.Key, err))
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
			key = "" // of a message that can't be read; it fails where somebody has to read it
		}
		try, wait := b.circuits.enter(key, time.Now())
		if try == nil {
			b.metrics.refused.Inc()
			return nil, handlers.RetryAfter(fmt.Errorf("not tried: the circuit breaker of key %q is open", key), wait)
		}
		ended := failed // with a panic
		defer func() {
			change := b.circuits.leave(try, ended, time.Now())
			log := transports.Traced(b.env.Logger, msg.Metadata)
			switch change {
			case opened:
				b.metrics.opened.Inc()
				log.Warn("circuit breaker opened; messages of its key are given up", "key", key, "err", err)
			case closed:
				log.Info("circuit breaker closed", "key", key)
			}
		}()
		out, err = next(msg)
		ended = b.judge(err, handlers.Cancelled(ctx))
		return out, err
	}
}

// judge says what the end of a run tells of its key.
func (b *breaker) judge(err error, cancelled bool) outcome {
	if err == nil {
		return worked
	}
	kind := handlers.KindOf(err)
	switch {
	case cancelled:
		return undecided
	case kind == handlers.KindRetryable && slices.Contains(b.counts, countRetryable),
		kind == handlers.KindUnavailable && slices.Contains(b.counts, countUnavailable):
		return failed
	case kind == handlers.KindPermanent, kind == handlers.KindDrop:
		return worked
	default:
		return undecided
	}
}
