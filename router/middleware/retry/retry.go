// Package retry is the middleware that retries a failed message in the same delivery, with growing
// pauses. The lane of the message's key waits in the meantime.
package retry

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
	"github.com/pentrough/pentrough/transports"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:    "retry",
		Summary: "Retries a failed message, with growing pauses.",
		Description: "Calls the handler again after a *retryable* error, up to `max_retries` times. The first pause is `initial_interval`. Each further pause is `multiplier` times the one before, " +
			"up to `max_interval`. `jitter` varies each pause at random: with 0.5 it is between half and one and a half of its length. In the meantime, messages of " +
			"the same key wait. An error may ask for a longer pause, as a server does with Retry-After. Then `retry` makes this longer pause, up to `max_retry_after`. After the last attempt, its error goes to `poison`. Messages with *permanent*, *drop* and *unavailable* errors are not retried here.",
		Place:  middleware.PlaceRetry,
		Config: func() middleware.Config { c := defaults; return &c },
	})
}

var defaults = Config{
	MaxRetries: 5, InitialInterval: 100 * time.Millisecond, MaxInterval: 10 * time.Second, Multiplier: 2, Jitter: 0.5, MaxRetryAfter: time.Minute,
}

// Config is the configuration of retry.
type Config struct {
	MaxRetries      int           `toml:"max_retries" doc:"How often a message is retried after the first attempt." min:"0"`
	InitialInterval time.Duration `toml:"initial_interval" doc:"The pause before the second attempt." min:"1ms"`
	MaxInterval     time.Duration `toml:"max_interval" doc:"The longest pause, before jitter." min:"1ms"`
	Multiplier      float64       `toml:"multiplier" doc:"Each pause is this number of times as long as the one before." min:"1"`
	Jitter          float64       `toml:"jitter" doc:"The part of its length by which a pause varies at random, up or down." min:"0" max:"1"`
	MaxRetryAfter   time.Duration `toml:"max_retry_after" doc:"The longest pause that an error may ask for; with \"0s\" errors can't ask for one." min:"0s"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxRetries < 0 {
		errs = append(errs, middleware.Invalid("max_retries", "is %d, must be at least 0", c.MaxRetries))
	}
	if c.InitialInterval < time.Millisecond {
		errs = append(errs, middleware.Invalid("initial_interval", "is %v, must be at least 1ms", c.InitialInterval))
	}
	if c.MaxInterval < c.InitialInterval {
		errs = append(errs, middleware.Invalid("max_interval", "is %v, must be at least initial_interval, %v", c.MaxInterval, c.InitialInterval))
	}
	if !(c.Multiplier >= 1) {
		errs = append(errs, middleware.Invalid("multiplier", "is %v, must be at least 1", c.Multiplier))
	}
	if !(c.Jitter >= 0 && c.Jitter <= 1) {
		errs = append(errs, middleware.Invalid("jitter", "is %v, must be between 0 and 1", c.Jitter))
	}
	if c.MaxRetryAfter < 0 {
		errs = append(errs, middleware.Invalid("max_retry_after", "is %v, must be at least 0s", c.MaxRetryAfter))
	}
	return errors.Join(errs...)
}

// New builds the middleware.
func (c *Config) New(env middleware.Env) (middleware.Middleware, error) {
	return &retry{*c, env}, nil
}

type retry struct {
	Config
	env middleware.Env
}

func (r *retry) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		outer := msg.Context()
		defer msg.SetContext(outer)
		out, err := next(msg)
		if err == nil || !mayRetry(outer, err) {
			return out, err
		}
		pauses := backoff.ExponentialBackOff{
			InitialInterval: r.InitialInterval, MaxInterval: r.MaxInterval, Multiplier: r.Multiplier, RandomizationFactor: r.Jitter,
		}
		attempts := 1
		for ; attempts <= r.MaxRetries; attempts++ {
			pause := time.NewTimer(max(pauses.NextBackOff(), min(handlers.RetryAfterOf(err), r.MaxRetryAfter)))
			transports.Traced(r.env.Logger, msg.Metadata).Debug("retrying after a pause", "id", handlers.Described(outer).ID, "attempts", attempts, "err", err)
			select {
			case <-pause.C:
			case <-outer.Done():
				pause.Stop()
				return nil, err
			}
			msg.SetContext(outer)
			if out, err = next(msg); err == nil {
				return out, nil
			}
			if !mayRetry(outer, err) {
				return nil, &failure{err, attempts + 1}
			}
		}
		return nil, &failure{err, attempts}
	}
}

// mayRetry reports whether a message that failed with err may be retried.
func mayRetry(ctx context.Context, err error) bool {
	return handlers.KindOf(err) == handlers.KindRetryable && !handlers.Cancelled(ctx)
}

// failure is the handler's last error, with the number of attempts, which poison records.
type failure struct {
	error
	attempts int
}

func (f *failure) Unwrap() error { return f.error }

// Attempts returns how often the message was tried.
func (f *failure) Attempts() int { return f.attempts }
