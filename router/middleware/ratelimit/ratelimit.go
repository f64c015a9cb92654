// Package ratelimit is the middleware that lets through so many messages of each key in a time: one device or tenant that sends
// too much doesn't use up what the others have.
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
		Summary:     "Limits how many messages of each key a pipeline handles in a time.",
		Description: description,
		Place:       middleware.PlaceThrottle,
		Config:      func() middleware.Config { c := defaults; return &c },
	})
}

const description = "Every key, such as a device, has a bucket of its own that holds `burst` messages and gets `rate` new ones a second; a message takes one. So each key has its own limit, where `throttle` has one for " +
	"the whole pipeline. The key is the one that orders the pipeline's messages, or what `key` names; messages without one share a bucket.\n\n" +
	"A message that comes to an empty bucket is treated as `over` says:\n\n" +
	"| `over` | the message |\n|---|---|\n" +
	"| `wait` | waits for its turn. Those of its key behind it wait in their lane, other keys go on; nothing is lost |\n" +
	"| `retryable`, `permanent` | is given up at once with an error of this kind: `poison` keeps it. A caller over HTTP gets 500 or 400 |\n" +
	"| `drop` | is given up and counts as done |\n\n" +
	"What waits is a part of what the source hands out at a time, such as the `prefetch` of a broker: a key that always sends more than its rate ends up filling it, and then the others wait too. " +
	"Where that may be, choose another `over`. With a `key` that has several lanes, as a tenant has several devices, the messages at the head of each of them wait for the same bucket.\n\n" +
	"It stands outside of `retry`: a message takes from the bucket once, however often it is tried. A bucket that is full again is forgotten. With more than `max_keys` that aren't full, the one longest unused is " +
	"forgotten too; if its key comes again, it begins with a full one."

// waits is the over of messages that aren't given up.
const waits = "wait"

// kinds are what else over may say.
var kinds = map[string]func(error) error{
	"retryable": func(err error) error { return err },
	"permanent": handlers.Permanent,
	"drop":      handlers.Drop,
}

var defaults = Config{Rate: 10, Burst: 10, Over: waits, MaxKeys: 100_000}

// leastRate and most bound rate and burst, so that the time in which a bucket fills up fits into a time.Duration.
const (
	leastRate = 0.001
	most      = 1_000_000
)

// Config is the configuration of rate-limit.
type Config struct {
	Rate    float64 `toml:"rate" doc:"How many messages of a key go through in a second; 0.1 is one in ten seconds." unit:"messages" min:"0.001" max:"1000000"`
	Burst   int     `toml:"burst" doc:"How many messages of a key may go through at once after a lull." unit:"messages" min:"1" max:"1000000"`
	Key     string  `toml:"key" doc:"What has a limit of its own: payload.FIELD of a JSON payload, or metadata.KEY. Default: the key that orders the pipeline's messages." example:"\"metadata.header.X-Tenant\""`
	Over    string  `toml:"over" doc:"What happens to a message over the limit: it waits, or is given up with an error of this kind." enum:"wait,retryable,permanent,drop"`
	MaxKeys int     `toml:"max_keys" doc:"How many keys are remembered at most." unit:"keys" min:"1" max:"10000000"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if !(c.Rate >= leastRate && c.Rate <= most) {
		errs = append(errs, middleware.Invalid("rate", "is %v, must be from %v to %d", c.Rate, leastRate, most))
	}
	if c.Burst < 1 || c.Burst > most {
		errs = append(errs, middleware.Invalid("burst", "is %d, must be from 1 to %d", c.Burst, most))
	}
	if err := middleware.Key(c.Key).Validate(); err != nil {
		errs = append(errs, middleware.Invalid("key", "%q is no key: %v", c.Key, err))
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
		Name: "pentrough_rate_limit_over_total", Help: "Messages that came when the bucket of their key was empty.",
	})}
	if err := env.Registerer.Register(l.over); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return l, nil
}

type limit struct {
	key middleware.Key
	// refuse makes the error of a message over the limit; nil: it waits.
	refuse  func(error) error
	buckets *buckets
	over    prometheus.Counter
}

func (l *limit) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		key, err := l.key.Of(msg)
		if err != nil {
			key = "" // of a message that can't be read; it fails where somebody has to read it
		}
		bucket := l.buckets.of(key, time.Now())
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
