package sql

import (
	"context"

	"github.com/pentrough/pentrough/internal/database"
)

// schema has the steps that make and update one of the handler's own tables.
type schema struct {
	table string
	steps []string
}

// versions returns the name of the table that records which steps were applied.
func (s schema) versions() string { return s.table + "_schema" }

// schemas returns the schemas of the tables that the configuration needs. Never change a step that
// was released: add one.
func (c *Config) schemas(d database.Dialect) []schema {
	if !c.Migrate {
		return nil
	}
	var all []schema
	t := d.Types
	if c.keepsTable() && len(c.Columns) == 0 {
		all = append(all, schema{c.Table, []string{d.Create(c.Table, []string{
			"device " + t.Text + " PRIMARY KEY",
			"online " + t.Bool + " NOT NULL DEFAULT false", "connected " + t.Bool + " NOT NULL DEFAULT false",
			"reason " + t.Text + " NOT NULL DEFAULT ''", "remote_addr " + t.Text + " NOT NULL DEFAULT ''", "host " + t.Text + " NOT NULL DEFAULT ''",
			"generation " + t.Number + " NOT NULL DEFAULT 0", "epoch " + t.Number + " NOT NULL DEFAULT 0", "seq " + t.Number + " NOT NULL DEFAULT 0",
			"connected_at " + t.Time, "changed_at " + t.Time,
			"last_result_id " + t.Text + " NOT NULL DEFAULT ''", "last_result_state " + t.Text + " NOT NULL DEFAULT ''", "last_result_at " + t.Time,
			"results " + t.Number + " NOT NULL DEFAULT 0",
			"last_data_at " + t.Time, "data_epoch " + t.Number + " NOT NULL DEFAULT 0", "data_seq " + t.Number + " NOT NULL DEFAULT 0",
			"data " + t.Number + " NOT NULL DEFAULT 0", "last_seen " + t.Time,
		}, database.Index{Name: c.indexName(), Columns: []string{"host", "online", "generation"}, Where: "connected"})}})
	}
	for _, p := range c.histories(d) {
		all = append(all, p.schema(d))
	}
	if c.columns()[online] != "" {
		all = append(all, schema{c.hosts(), []string{d.Create(c.hosts(), []string{
			"name " + t.Text + " PRIMARY KEY", "generation " + t.Number + " NOT NULL", "seq " + t.Number + " NOT NULL",
			"online " + t.Bool + " NOT NULL", "reason " + t.Text + " NOT NULL", "heard_at " + t.Time + " NOT NULL", "heard_by " + t.Text + " NOT NULL",
		})}})
	}
	return all
}

// probes returns statements that the database explains, but never executes. This shows whether the
// tables fit.
func (h *handler) probes() []database.Statement {
	v := values{
		device: "", connected: false, online: false, reason: "", remoteAddr: "", host: "", generation: int64(0), epoch: int64(0), seq: int64(0),
		lastResultID: "", lastResultState: "", dataEpoch: int64(0), dataSeq: int64(0),
	}
	for _, f := range []field{connectedAt, changedAt, lastResultAt, lastDataAt, lastSeen} {
		v[f] = h.time(h.env.Now())
	}
	var all []database.Statement
	for _, t := range []*template{h.changes.event, h.changes.result, h.changes.resultOnly, h.changes.data} {
		if t != nil {
			all = append(all, t.bind(v))
		}
	}
	for _, p := range h.histories {
		all = append(all, database.Statement{Text: p.insert, Args: p.probe(h)})
	}
	if h.named != nil {
		all = append(all, h.named.probe(v[lastSeen]))
	}
	if h.presence != nil {
		now := v[lastSeen]
		all = append(all, h.presence.hostStatement(&heard{}, now, ""))
		all = append(all, h.presence.deviceStatements("")...)
	}
	return all
}

// explainStatements lets the database explain every statement, and returns the error for the first
// that doesn't fit the tables.
func (h *handler) explainStatements(ctx context.Context) error {
	for _, s := range h.probes() {
		if err := h.db.Explain(ctx, s); err != nil {
			return err
		}
	}
	if c := h.Config; c.keepsTable() && c.Insert {
		return h.db.CheckKey(ctx, c.Table, c.Key)
	}
	return nil
}
