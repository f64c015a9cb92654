// Package sql is the handler that keeps a database's table of devices true: a row for each device, of who is there, of its last result and its last
// data. How presence is kept is in docs/databases.md; why in SQL, in docs/decisions/0025.
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
	env      handlers.Env
	changes  changes
	presence *presence
	named    *named
	pasts    map[string]*past

	mu sync.Mutex // of what follows
	db database.DB
	// ready says that the tables are there.
	ready bool
	known map[string]*knownHost
	// present is what the source's clock showed last.
	present time.Duration

	outage *outage.Outage // as tend finds the database

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
}

var (
	_ handlers.BatchHandler = (*handler)(nil)
	_ handlers.Describer    = (*handler)(nil)
	_ handlers.Reporter     = (*handler)(nil)
)

// watchInterval is how often silent hosts are looked for.
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
	h := &handler{Config: *c, env: env, db: db, named: own, pasts: c.pasts(db.Dialect()), changes: c.changes(db.Dialect()), presence: c.presence(db.Dialect()), known: map[string]*knownHost{}, outage: outage.New(env.Logger, "the database")}
	h.life, h.end = context.WithCancel(context.Background())
	return h, nil
}

// Handle handles one message.
func (h *handler) Handle(msg *message.Message) ([]*message.Message, error) {
	return nil, h.HandleBatch(msg.Context(), []*message.Message{msg})[0].Err
}

// HandleBatch writes all messages in one transaction. Where a row is at fault it finds that one, and the others are written without it.
func (h *handler) HandleBatch(ctx context.Context, msgs []*message.Message) []handlers.Outcome {
	outcomes := make([]handlers.Outcome, len(msgs))
	jobs := make([]job, 0, len(msgs))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, msg := range msgs {
		j, err := h.asked(msg)
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
		fail(jobs, outcomes, unavailable(ctx, err))
		return outcomes
	}
	h.write(ctx, jobs, outcomes)
	return outcomes
}

// write makes the changes of jobs in one transaction, or of halves of them until it is known whose fault it is that it fails.
func (h *handler) write(ctx context.Context, jobs []job, outcomes []handlers.Outcome) {
	err := h.db.Apply(ctx, h.statements(jobs))
	switch {
	case err == nil:
		h.listen(jobs)
	case database.KindOf(err) == database.Outage:
		h.ready = false // another file or server may be in its place afterwards, with other tables
		fail(jobs, outcomes, unavailable(ctx, err))
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
		all = h.presence.before(jobs, now, by)
	}
	for _, j := range jobs {
		if j.statement != nil {
			all = append(all, *j.statement)
		}
		if j.kept != nil {
			all = append(all, *j.kept)
		}
		if j.host != nil && j.host.ofHost {
			all = append(all, h.presence.tell(j.host, now, by))
		}
	}
	if h.presence != nil {
		all = append(all, h.presence.after(jobs)...)
	}
	return all
}

func fail(jobs []job, outcomes []handlers.Outcome, err error) {
	for _, j := range jobs {
		outcomes[j.at].Err = err
	}
}

// unavailable says that the database is away, and why if it is ctx that ended.
func unavailable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return handlers.Unavailable(fmt.Errorf("writing to the database: %w", err))
}

// prepare makes the tables that are the handler's own, once, and looks at all of them.
func (h *handler) prepare(ctx context.Context) error {
	if h.ready {
		return nil
	}
	for _, s := range h.schemas(h.db.Dialect()) {
		if err := h.db.Migrate(ctx, s.versions(), s.steps); err != nil {
			return fmt.Errorf("making the table %s: %w", s.table, err)
		}
	}
	if err := h.explain(ctx); err != nil {
		if database.KindOf(err) == database.Outage {
			return err
		}
		h.env.Logger.Error("the tables don't fit what the pipeline writes: its messages will fail", "err", err)
	} else if h.presence != nil {
		if err := h.load(ctx); err != nil {
			return err
		}
	}
	h.ready = true
	return nil
}

// tend makes the tables at the start, and looks for silent hosts.
func (h *handler) tend() {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		if err := h.step(); err == nil || h.life.Err() == nil {
			h.outage.Report(err)
		}
		select {
		case <-tick.C:
		case <-h.life.Done():
			return
		}
	}
}

func (h *handler) step() error {
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
	return h.watch(ctx)
}

// Health implements handlers.Reporter: a database that is away is told before a message comes for it.
func (h *handler) Health() error {
	if err := h.outage.Err(); err != nil {
		return fmt.Errorf("the database can't be used: %w", err)
	}
	return nil
}

// Close ends the handler.
func (h *handler) Close() error {
	h.end()
	h.work.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.db.Close()
}
