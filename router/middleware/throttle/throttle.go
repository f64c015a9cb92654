// Package throttle is the middleware that limits the rate of messages of a pipeline. Messages over
// the limit wait.
package throttle

import (
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/time/rate"

	"github.com/pentrough/pentrough/router/middleware"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:    "throttle",
		Summary: "Limits how many messages a pipeline handles in an interval.",
		Description: "Lets `count` messages pass in every `interval`, evenly spaced. The other messages of the pipeline wait. After a pause up to " +
			"`burst` messages pass at once. Each pipeline has its own limit.",
		Place:  middleware.PlaceThrottle,
		Config: func() middleware.Config { c := defaults; return &c },
	})
}

var defaults = Config{Count: 100, Interval: time.Second, Burst: 1}

// Config is the configuration of throttle.
type Config struct {
	Count    int           `toml:"count" doc:"How many messages pass in an interval." unit:"messages" min:"1"`
	Interval time.Duration `toml:"interval" doc:"The interval in which count messages pass." min:"1ms"`
	Burst    int           `toml:"burst" doc:"How many messages may pass at once after a pause." unit:"messages" min:"1"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.Count < 1 {
		errs = append(errs, middleware.Invalid("count", "is %d, must be at least 1", c.Count))
	}
	if c.Interval < time.Millisecond {
		errs = append(errs, middleware.Invalid("interval", "is %v, must be at least 1ms", c.Interval))
	}
	if c.Burst < 1 {
		errs = append(errs, middleware.Invalid("burst", "is %d, must be at least 1", c.Burst))
	}
	return errors.Join(errs...)
}

// New builds the middleware.
func (c *Config) New(middleware.Env) (middleware.Middleware, error) {
	return &throttle{rate.NewLimiter(rate.Limit(float64(c.Count)/c.Interval.Seconds()), c.Burst)}, nil
}

type throttle struct{ limiter *rate.Limiter }

func (t *throttle) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		if err := t.limiter.Wait(msg.Context()); err != nil {
			return nil, fmt.Errorf("waiting for the throttle: %w", err)
		}
		return next(msg)
	}
}
