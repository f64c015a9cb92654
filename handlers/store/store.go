// Package store is the handler that stores dead letters as rows in a database. People can list,
// replay and drop them with `pentrough poison`.
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
		Summary: "Stores dead letters as rows in a database.",
		Description: "Takes the dead letters of the middleware `poison`, for example `from = " +
			"\"broker:commands.poison\"`, and stores each as a row. The row has the body, properties " +
			"and headers as they were, and the cause, pipeline, handler, attempts and source. " +
			"`pentrough poison` lists the rows, shows them, sends them back to their source, or " +
			"drops them.\n\n" +
			"`[store]` says where the rows are. With a `sqlite` store they are in a file next to " +
			"the store's, with `-poison` after its `path`. With a `postgres` store they are in the " +
			"table `pentrough_poison`, which hosts may share. A `memory` store can't have rows.\n\n" +
			"The handler acks a message when its row has reached the disk. A redelivered message " +
			"doesn't get a second row. A message that becomes a dead letter again after a replay " +
			"gets another row. If the database doesn't work, or the disk is full, the error is " +
			"*unavailable*: the pipeline pauses, and the messages stay in the broker.\n\n" +
			"The handler fails no message, so a pipeline with a broker as its source needs " +
			"`on_error = \"drop\"`. It produces no messages.\n\n" +
			"If there are more than `max_rows` rows, the handler first removes replayed and dropped " +
			"ones, and then the oldest. It checks `max_rows` and `keep` when messages come, and " +
			"once an hour. `pentrough_store_removed_total` counts removed rows. If the handler " +
			"removes rows that nobody has replayed or dropped, the log has one warning.",
		Config: func() handlers.Config {
			c := defaults
			return &c
		},
	})
}

// Config is the configuration of store.
type Config struct {
	MaxRows int           `toml:"max_rows" doc:"The most rows of this pipeline." unit:"rows" min:"1"`
	Keep    time.Duration `toml:"keep" doc:"How long a row is kept, whether it was replayed or not." min:"1m"`
}

var defaults = Config{MaxRows: 100_000, Keep: 30 * 24 * time.Hour}

// NeedsStore returns why the handler needs the host's store. It implements handlers.StoreUser.
func (*Config) NeedsStore() string { return `the handler "store"` }

// Validate returns all problems of the configuration, joined.
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

// cleanupInterval is the time between two removals of old rows while no message comes.
const cleanupInterval = time.Hour

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	if env.DeadLetters == nil {
		return nil, errors.New(`the host has no database for rows; set [store] type = "sqlite" or "postgres"`)
	}
	s := &store{
		env: env, limits: handlers.DeadLetterLimits{Keeper: env.Pipeline, Rows: c.MaxRows, Age: c.Keep},
		kept: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pentrough_store_kept_total", Help: "Messages that were stored as a row; a redelivered message counts again.",
		}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pentrough_store_removed_total", Help: "Rows removed because of max_rows and keep: settled (replayed or dropped), or open.",
		}, []string{"state"}),
	}
	for _, m := range []prometheus.Collector{s.kept, s.removed} {
		if err := env.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.work.Go(s.runCleanup)
	return s, nil
}

type store struct {
	env     handlers.Env
	limits  handlers.DeadLetterLimits
	kept    prometheus.Counter
	removed *prometheus.CounterVec
	// warned limits the warning about removed open rows to one.
	warned sync.Once

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

var (
	_ handlers.BatchHandler = (*store)(nil)
	_ handlers.StoreUser    = (*Config)(nil)
)

// Handle stores one message.
func (s *store) Handle(msg *message.Message) ([]*message.Message, error) {
	return nil, s.keepRows(msg.Context(), msg)
}

// HandleBatch stores all messages with one write to the disk.
func (s *store) HandleBatch(ctx context.Context, msgs []*message.Message) []handlers.Outcome {
	outcomes := make([]handlers.Outcome, len(msgs))
	if err := s.keepRows(ctx, msgs...); err != nil {
		for i := range outcomes {
			outcomes[i].Err = err
		}
	}
	return outcomes
}

func (s *store) keepRows(ctx context.Context, msgs ...*message.Message) error {
	letters := make([]handlers.DeadLetter, len(msgs))
	for i, msg := range msgs {
		letters[i] = newLetter(msg)
	}
	removed, err := s.env.DeadLetters.Keep(ctx, letters, s.limits)
	if err != nil {
		return handlers.Unavailable(fmt.Errorf("keeping dead letters: %w", err))
	}
	s.kept.Add(float64(len(msgs)))
	s.removed.WithLabelValues("settled").Add(float64(removed.Settled))
	s.removed.WithLabelValues("open").Add(float64(removed.Open))
	if removed.Open > 0 {
		s.warned.Do(func() {
			s.env.Logger.Warn("dead letters were removed that nobody had replayed or dropped; pentrough_store_removed_total counts later ones",
				"rows", removed.Open, "max_rows", s.limits.Rows, "keep", s.limits.Age)
		})
	}
	return nil
}

// runCleanup removes rows above the limits while no message comes, until Close.
func (s *store) runCleanup() {
	tick := time.NewTicker(cleanupInterval)
	defer tick.Stop()
	for {
		if err := s.keepRows(s.life); err != nil && s.life.Err() == nil {
			// The next message reports the outage.
			s.env.Logger.Debug("removing old rows", "err", err)
		}
		select {
		case <-tick.C:
		case <-s.life.Done():
			return
		}
	}
}

// Close stops the cleanup.
func (s *store) Close() error {
	s.end()
	s.work.Wait()
	return nil
}
