// Package store is the handler that keeps messages which couldn't be handled as rows, for people to look at, to send again or to drop.
package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pentrough/pentrough/handlers"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:    "store",
		Summary: "Keeps messages that couldn't be handled as rows.",
		Description: "Takes what the middleware `poison` put aside, `from = \"broker:commands.poison\"`, and keeps each message as a row: body, properties and headers as they were, " +
			"and beside them cause, pipeline, handler, attempts, and where it came from. `pentrough poison` lists the rows, shows them, sends them back to where they came from, or drops them.\n\n" +
			"Rows are in the place that `[store]` names: in a file beside that of a `sqlite` store (its `path` with `-poison` behind it), or in the table `pentrough_poison` of a `postgres` store, which hosts may share. " +
			"A `memory` store has no place for them. A message is acked when its row has reached the disk. One that the broker delivers again has one row; one that is put aside again, after it was replayed, gets another. " +
			"A database that is away, or a full disk, is *unavailable*: the pipeline waits, and the messages stay with the broker.\n\n" +
			"The handler fails no message, so a pipeline that takes from a broker says `on_error = \"drop\"`. It produces nothing.\n\n" +
			"Beyond `max_rows` those rows go first that were replayed or dropped, then the oldest; `keep` is looked at when messages come, and once an hour. " +
			"`pentrough_store_removed_total` counts what went; the log says once when rows went that nobody had replayed or dropped.",
		Config: func() handlers.Config {
			c := defaults
			return &c
		},
	})
}

// Config is the configuration of store.
type Config struct {
	MaxRows int           `toml:"max_rows" doc:"How many rows this pipeline keeps." unit:"rows" min:"1"`
	Keep    time.Duration `toml:"keep" doc:"How long a row is kept, whatever became of it." min:"1m"`
}

var defaults = Config{MaxRows: 100_000, Keep: 30 * 24 * time.Hour}

// NeedsStore implements handlers.StoreUser.
func (*Config) NeedsStore() string { return `the handler "store"` }

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	if c.MaxRows < 1 {
		errs = append(errs, handlers.Invalid("max_rows", "is %d, must be at least 1", c.MaxRows))
	}
	if c.Keep < time.Minute {
		errs = append(errs, handlers.Invalid("keep", "is %v, must be at least 1m", c.Keep))
	}
	return errors.Join(errs...)
}

// tidyInterval is how often rows are looked at while nothing comes.
const tidyInterval = time.Hour

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	if env.DeadLetters == nil {
		return nil, errors.New(`the host has no place for rows: [store] type = "sqlite" or "postgres" gives it one`)
	}
	s := &store{
		env: env, limits: handlers.DeadLetterLimits{Keeper: env.Pipeline, Rows: c.MaxRows, Age: c.Keep},
		kept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pentrough_store_kept_total", Help: "Messages that have a row on disk; one that came again counts again.",
		}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pentrough_store_removed_total", Help: "Rows removed as max_rows and keep say: settled (replayed or dropped), or open.",
		}, []string{"state"}),
	}
	for _, m := range []prometheus.Collector{s.kept, s.removed} {
		if err := env.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.work.Go(s.tidy)
	return s, nil
}

type store struct {
	env     handlers.Env
	limits  handlers.DeadLetterLimits
	kept    prometheus.Counter
	removed *prometheus.CounterVec
	// said is that the log was told of rows that went before anybody dealt with them.
	said sync.Once

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

var (
	_ handlers.BatchHandler = (*store)(nil)
	_ handlers.StoreUser    = (*Config)(nil)
)

// Handle keeps one message.
func (s *store) Handle(msg *message.Message) ([]*message.Message, error) {
	return nil, s.keep(msg.Context(), msg)
}

// HandleBatch keeps all messages in one go: with one write to the disk.
func (s *store) HandleBatch(ctx context.Context, msgs []*message.Message) []handlers.Outcome {
	outcomes := make([]handlers.Outcome, len(msgs))
	if err := s.keep(ctx, msgs...); err != nil {
		for i := range outcomes {
			outcomes[i].Err = err
		}
	}
	return outcomes
}

func (s *store) keep(ctx context.Context, msgs ...*message.Message) error {
	letters := make([]handlers.DeadLetter, len(msgs))
	for i, msg := range msgs {
		letters[i] = letter(msg)
	}
	removed, err := s.env.DeadLetters.Keep(ctx, letters, s.limits)
	if err != nil {
		return handlers.Unavailable(fmt.Errorf("keeping dead letters: %w", err))
	}
	s.kept.Add(float64(len(msgs)))
	s.removed.WithLabelValues("settled").Add(float64(removed.Settled))
	s.removed.WithLabelValues("open").Add(float64(removed.Open))
	if removed.Open > 0 {
		s.said.Do(func() {
			s.env.Logger.Warn("dead letters were removed that nobody had replayed or dropped; pentrough_store_removed_total counts what follows",
				"rows", removed.Open, "max_rows", s.limits.Rows, "keep", s.limits.Age)
		})
	}
	return nil
}

// tidy holds the rows to their limits while nothing comes.
func (s *store) tidy() {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	for {
		if err := s.keep(s.life); err != nil && s.life.Err() == nil {
			s.env.Logger.Debug("the rows were not looked at", "err", err) // a message that comes makes it known
		}
		select {
		case <-tick.C:
		case <-s.life.Done():
			return
		}
	}
}

// Close ends the handler.
func (s *store) Close() error {
	s.end()
	s.work.Wait()
	return nil
}
