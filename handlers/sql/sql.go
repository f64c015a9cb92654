// Package sql is the handler that writes messages about devices to a database. It keeps one row
// for each device, with its presence, last result and last data. It can also append messages to
// tables, or run a statement of the user for each message.
//
// A batch of messages is one transaction (see HandleBatch). If a row makes it fail, the batch is
// halved until that row is found. docs/databases.md explains how the presence is kept;
// docs/decisions/0025 explains why SQL does it.
package sql

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/outage"
)

// handler writes to the tables of one pipeline.
type handler struct {
	Config
	env       handlers.Env
	changes   changes
	presence  *presence
	named     *named
	histories map[string]*history

	mu sync.Mutex // guards the fields up to sourceTime
	db database.DB
	// ready says that the tables exist and were checked.
	ready bool
	known map[string]*knownHost
	// sourceTime is the time of the source's clock at the last check.
	sourceTime time.Duration

	outage *outage.Outage // what runChecks finds

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

var (
	_ handlers.BatchHandler = (*handler)(nil)
	_ handlers.Describer    = (*handler)(nil)
	_ handlers.Reporter     = (*handler)(nil)
)

// watchInterval is the time between two checks of the database and for silent hosts.
const watchInterval = time.Second

func (c *Config) build(env handlers.Env) (*handler, error) {
	db, err := c.open("pentrough " + env.Host + " " + env.Pipeline)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	own, err := c.named(db.Dialect())
	if err != nil {
		return nil, err
	}
	h := &handler{Config: *c, env: env, db: db, named: own, histories: c.histories(db.Dialect()), changes: c.changes(db.Dialect()), presence: c.presence(db.Dialect()), known: map[string]*knownHost{}, outage: outage.New(env.Logger, "the database")}
	h.life, h.end = context.WithCancel(context.Background())
	return h, nil
}

// Handle writes one message.
func (h *handler) Handle(msg *message.Message) ([]*message.Message, error) {
	return nil, h.HandleBatch(msg.Context(), []*message.Message{msg})[0].Err
}

// HandleBatch writes all messages in one transaction. If the database refuses a row, the message
// with that row fails, and the others are written.
func (h *handler) HandleBatch(ctx context.Context, msgs []*message.Message) []handlers.Outcome {
	outcomes := make([]handlers.Outcome, len(msgs))
	jobs := make([]job, 0, len(msgs))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, msg := range msgs {
		j, err := h.jobFor(msg)
		if err != nil {
			outcomes[i].Err = handlers.Permanent(err)
			continue
		}
		if h.presence == nil {
			j.host = nil
		}
		if j.statement != nil || j.kept != nil || j.host != nil {
			j.at = i
			jobs = append(jobs, j)
		}
	}
	if len(jobs) == 0 {
		return outcomes
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, fmt.Errorf("the database took longer than %s", h.Timeout))
	defer cancel()
	if err := h.prepare(ctx); err != nil {
		failJobs(jobs, outcomes, unavailable(ctx, err))
		return outcomes
	}
	h.write(ctx, jobs, outcomes)
	return outcomes
}

// write executes the statements of jobs in one transaction. If that fails because of a row, it
// tries each half, until the job that fails is alone.
func (h *handler) write(ctx context.Context, jobs []job, outcomes []handlers.Outcome) {
	err := h.db.Apply(ctx, h.statements(jobs))
	switch {
	case err == nil:
		h.noteHosts(jobs)
	case database.KindOf(err) == database.Outage:
		h.ready = false // after an outage the file or server may be another one, with other tables
		failJobs(jobs, outcomes, unavailable(ctx, err))
	case len(jobs) == 1:
		outcomes[jobs[0].at].Err = handlers.Permanent(fmt.Errorf("writing to the database: %w", err))
	default:
		middle := len(jobs) / 2
		h.write(ctx, jobs[:middle], outcomes)
		h.write(ctx, jobs[middle:], outcomes)
	}
}

func (h *handler) statements(jobs []job) []database.Statement {
	var all []database.Statement
	now, by := h.time(h.env.Now()), h.env.Pipeline
	if h.presence != nil {
		all = h.presence.lockHosts(jobs, now, by)
	}
	for _, j := range jobs {
		if j.statement != nil {
			all = append(all, *j.statement)
		}
		if j.kept != nil {
			all = append(all, *j.kept)
		}
		if j.host != nil && j.host.ofHost {
			all = append(all, h.presence.hostStatement(j.host, now, by))
		}
	}
	if h.presence != nil {
		all = append(all, h.presence.updateDevices(jobs)...)
	}
	return all
}

// failJobs sets the error of all jobs.
func failJobs(jobs []job, outcomes []handlers.Outcome, err error) {
	for _, j := range jobs {
		outcomes[j.at].Err = err
	}
}

// unavailable makes the error of a database that doesn't work. It contains the cause if ctx has
// ended.
func unavailable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return handlers.Unavailable(fmt.Errorf("writing to the database: %w", err))
}

// prepare makes the handler's own tables and checks all tables. After it has succeeded, it does
// nothing until ready is reset.
func (h *handler) prepare(ctx context.Context) error {
	if h.ready {
		return nil
	}
	for _, s := range h.schemas(h.db.Dialect()) {
		if err := h.db.Migrate(ctx, s.versions(), s.steps); err != nil {
			return fmt.Errorf("making the table %s: %w", s.table, err)
		}
	}
	if err := h.explainStatements(ctx); err != nil {
		if database.KindOf(err) == database.Outage {
			return err
		}
		h.env.Logger.Error("the tables don't fit the statements of the pipeline: its messages will fail", "err", err)
	} else if h.presence != nil {
		if err := h.loadHosts(ctx); err != nil {
			return err
		}
	}
	h.ready = true
	return nil
}

// runChecks makes the tables at the start, and then checks the database and looks for silent hosts
// until Close.
func (h *handler) runChecks() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if err := h.checkDatabase(); err == nil || h.life.Err() == nil {
			h.outage.Report(err)
		}
		select {
		case <-tick.C:
		case <-h.life.Done():
			return
		}
	}
}

func (h *handler) checkDatabase() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	ctx, cancel := context.WithTimeout(h.life, h.Timeout)
	defer cancel()
	if err := h.db.CheckPlace(ctx); err != nil {
		h.ready = false
		return err
	}
	if err := h.prepare(ctx); err != nil {
		return err
	}
	if h.presence == nil {
		return nil
	}
	return h.findSilentHosts(ctx)
}

// Health returns an error while the database doesn't work, also if no message comes. It implements
// handlers.Reporter.
func (h *handler) Health() error {
	if err := h.outage.Err(); err != nil {
		return fmt.Errorf("the database can't be used: %w", err)
	}
	return nil
}

// Close stops the goroutines and closes the database.
func (h *handler) Close() error {
	h.end()
	h.work.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.db.Close()
}
