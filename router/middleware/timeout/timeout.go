// Package timeout is the middleware that limits how long one attempt at a message may take.
package timeout

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/router/middleware"
)

func init() {
	middleware.Register(middleware.Plugin{
		Name:    "timeout",
		Summary: "Ends an attempt that takes too long.",
		Description: "Ends the context of a message's handler after `timeout`. If the handler then returns an error, it is an error like any other: " +
			"`retry` retries the message. If the handler succeeds all the same, the message has succeeded. `timeout` is the innermost middleware, so that each attempt " +
			"of `retry` has the whole time.",
		Place:  middleware.PlaceTimeout,
		Config: func() middleware.Config { c := defaults; return &c },
	})
}

var defaults = Config{Timeout: 30 * time.Second}

// Config is the configuration of timeout.
type Config struct {
	Timeout time.Duration `toml:"timeout" doc:"How long one attempt may take." min:"1ms"`
}

// Validate reports all problems.
func (c *Config) Validate() error {
	if c.Timeout < time.Millisecond {
		return middleware.Invalid("timeout", "is %v, must be at least 1ms", c.Timeout)
	}
	return nil
}

// New builds the middleware.
func (c *Config) New(middleware.Env) (middleware.Middleware, error) {
	return &timeout{after: c.Timeout, cause: fmt.Errorf("took longer than %v: %w", c.Timeout, context.DeadlineExceeded)}, nil
}

type timeout struct {
	after time.Duration
	cause error
}

func (t *timeout) Wrap(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		outer := msg.Context()
		ctx, cancel := context.WithTimeoutCause(outer, t.after, t.cause)
		defer func() {
			cancel()
			msg.SetContext(outer)
		}()
		msg.SetContext(ctx)
		return next(msg)
	}
}
