// Package ratelimit is the middleware that limits the rate of messages of each key. So one device
// or tenant that sends too much doesn't take capacity from the others.
package ratelimit

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/router/middleware"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:        "rate-limit",
		Summary:     "Limits how many messages of each key a pipeline handles in a second.",
		Description: description,
		Place:       middleware.PlaceThrottle,
		Config:      func() middleware.Config { c := defaults; return &c },
	})
}

const description = "Each key, such as a device, has its own bucket of up to `burst` tokens. The bucket gets `rate` new tokens a second, and each message takes one. `throttle`, in contrast, has one limit for the whole " +
	"pipeline. The key is the one that orders the pipeline's messages, or the one that `key` names; messages without a key share a bucket.\n\n" +
	"`over` says what happens to a message that finds its bucket empty:\n\n" +
	"| `over` | the message |\n|---|---|\n" +
	"| `wait` | waits for a token. The next messages of its key wait in their lane, other keys go on; no message is lost |\n" +
	"| `retryable`, `permanent` | is refused with an error of this kind, and `poison` publishes it to its topic. An HTTP caller gets 500 or 400 |\n" +
	"| `drop` | is dropped and counts as done |\n\n" +
	"Waiting messages use up the source's window, such as the `prefetch` of a broker. A key that always sends more than its rate fills the window in the end, and then the other keys wait, too. " +
	"If that can happen, choose another `over`. A `key` can have several lanes: a tenant, for example, has several devices. Then the first message of each lane waits for the same bucket.\n\n" +
	"`rate-limit` is outside of `retry`: a message takes one token, however often it is tried. A full bucket is forgotten. If more than `max_keys` buckets aren't full, the one that wasn't used for the longest time is " +
	"forgotten, too; the next message of its key finds a full bucket."

// waits is the value of over with which messages wait and aren't refused.
const waits = "wait"

// kinds has the other values of over.
var kinds = map[string]func(error) error{
	"retryable": func(err error) error { return err },
	"permanent": handlers.Permanent,
	"drop":      handlers.Drop,
}

var defaults = Config{Rate: 10, Burst: 10, Over: waits, MaxKeys: 100_000}

// minRate and maxRate bound rate, and maxRate also bounds burst. So the time in which a bucket
// fills up fits into a time.Duration.
const (
	minRate = 0.001
	maxRate = 1_000_000
)

// Config is the configuration of rate-limit.
type Config struct {
	Rate    float64 `toml:"rate" doc:"How many messages of a key pass in a second; 0.1 is one in ten seconds." unit:"messages" min:"0.001" max:"1000000"`
	Burst   int     `toml:"burst" doc:"How many messages of a key may pass at once after a pause." unit:"messages" min:"1" max:"1000000"`
	Key     string  `toml:"key" doc:"The key that has its own limit: payload.FIELD of a JSON payload, or metadata.KEY. Default: the key that orders the pipeline's messages." example:"\"metadata.header.X-Tenant\""`
	Over    string  `toml:"over" doc:"What happens to a message over the limit: it waits, or is refused with an error of this kind." enum:"wait,retryable,permanent,drop"`
	MaxKeys int     `toml:"max_keys" doc:"The most keys that are remembered." unit:"keys" min:"1" max:"10000000"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if !(c.Rate >= minRate && c.Rate <= maxRate) {
		errs = append(errs, middleware.Invalid("rate", "is %v, must be from %v to %d", c.Rate, minRate, maxRate))
	}
	if c.Burst < 1 || c.Burst > maxRate {
		errs = append(errs, middleware.Invalid("burst", "is %d, must be from 1 to %d", c.Burst, maxRate))
	}
	if err := middleware.Key(c.Key).Validate(); err != nil {
		errs = append(errs, middleware.Invalid("key", "%q isn't a key: %v", c.Key, err))
	}
	if _, ok := kinds[c.Over]; !ok && c.Over != waits {
		errs = append(errs, middleware.Invalid("over", "is %q, must be wait, retryable, permanent or drop", c.Over))
	}
	if c.MaxKeys < 1 {
		errs = append(errs, middleware.Invalid("max_keys", "is %d, must be at least 1", c.MaxKeys))
	}
	return errors.Join(errs...)
}

// New builds the middleware.
func (c *Config) New(env middleware.Env) (middleware.Middleware, error) {
	l := &limit{key: middleware.Key(c.Key), refuse: kinds[c.Over], buckets: newBuckets(c), over: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pentrough_rate_limit_over_total", Help: "Messages that arrived when the bucket of their key was empty.",
	})}
	if err := env.Registerer.Register(l.over); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return l, nil
}

type limit struct {
	key middleware.Key
	// refuse makes the error of a message over the limit. If it is nil, the message waits.
	refuse  func(error) error
	buckets *buckets
	over    prometheus.Counter
}

func (l *limit) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		key, err := l.key.Of(msg)
		if err != nil {
			key = "" // the message can't be read; the handler that reads it will fail
		}
		bucket := l.buckets.bucketOf(key, time.Now())
		if bucket.Allow() {
			return next(msg)
		}
		l.over.Inc()
		if l.refuse != nil {
			missing := (1 - bucket.Tokens()) / float64(bucket.Limit())
			return nil, handlers.RetryAfter(l.refuse(fmt.Errorf("more than %v messages a second of key %q", bucket.Limit(), key)),
				time.Duration(missing*float64(time.Second)))
		}
		if err := bucket.Wait(msg.Context()); err != nil {
			return nil, fmt.Errorf("waiting for the rate limit of key %q: %w", key, err)
		}
		return next(msg)
	}
}
