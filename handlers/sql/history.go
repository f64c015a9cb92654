package sql

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/jsontext"
	"github.com/pentrough/pentrough/internal/outage"
	devices "github.com/pentrough/pentrough/transports/device"
)

// History has the tables to which messages are appended.
type History struct {
	Events    string        `toml:"events" doc:"The table of events." example:"\"device_events\""`
	Results   string        `toml:"results" doc:"The table of results." example:"\"device_results\""`
	Data      string        `toml:"data" doc:"The table of data." example:"\"device_data\""`
	Retention time.Duration `toml:"retention" doc:"How long a row is kept, counted from the time in its message. 0s: for ever." min:"0s" example:"\"720h\""`
}

const (
	// expireInterval is the time between two removals of old rows.
	expireInterval = time.Minute
	// expireStep is the most rows that one transaction removes.
	expireStep = 1000
)

// history is a table to which messages of one type are appended.
type history struct {
	table string
	// names are the columns, kinds their types, and key the columns that identify a message.
	names, kinds, key []string
	row               func(h *handler, body []byte) ([]any, error)
	insert            string
}

// The types of columns in tables of history.
const (
	kindText   = "text"
	kindLong   = "long"
	kindBool   = "bool"
	kindNumber = "number"
	kindTime   = "time"
)

// histories returns the tables of history, by message type.
func (c *Config) histories(d database.Dialect) map[string]*history {
	if c.History == nil {
		return nil
	}
	all := map[string]*history{
		devices.TypeEvent: {
			table: c.History.Events, key: []string{"event_id"}, row: eventRow,
			names: []string{"event_id", "type", "device", "online", "reason", "remote_addr", "host", "generation", "epoch", "seq", "connected_at", "time"},
			kinds: []string{kindText, kindText, kindText, kindBool, kindText, kindText, kindText, kindNumber, kindNumber, kindNumber, kindTime, kindTime},
		},
		devices.TypeResult: {
			table: c.History.Results, key: []string{"id", "device"}, row: resultRow,
			names: []string{"id", "device", "state", "code", "detail", "reply", "encoding", "host", "epoch", "attempt", "time"},
			kinds: []string{kindText, kindText, kindText, kindNumber, kindLong, kindLong, kindText, kindText, kindNumber, kindNumber, kindTime},
		},
		devices.TypeData: {
			table: c.History.Data, key: []string{"data_id"}, row: dataRow,
			names: []string{"data_id", "device", "host", "epoch", "seq", "encoding", "payload", "kind", "partial", "late_for", "time"},
			kinds: []string{kindText, kindText, kindText, kindNumber, kindNumber, kindText, kindLong, kindText, kindBool, kindText, kindTime},
		},
	}
	for kind, p := range all {
		if p.table == "" {
			delete(all, kind)
			continue
		}
		p.insert = d.InsertNew(p.table, p.names, p.key)
	}
	return all
}

// schema returns the schema of the table. One index is for queries of one device, the other for
// the removal of old rows.
func (p *history) schema(d database.Dialect) schema {
	types := map[string]string{kindText: d.Types.Text, kindLong: d.Types.Long, kindBool: d.Types.Bool, kindNumber: d.Types.Number, kindTime: d.Types.Time}
	var columns []string
	for i, name := range p.names {
		column := d.Quote(name) + " " + types[p.kinds[i]]
		if p.kinds[i] != kindTime || name == "time" {
			column += " NOT NULL"
		}
		columns = append(columns, column)
	}
	columns = append(columns, "PRIMARY KEY ("+d.Quoted(p.key)+")")
	bare := bareName(p.table)
	return schema{p.table, []string{d.Create(p.table, columns,
		database.Index{Name: bare + "_device", Columns: []string{d.Quote("device"), d.Quote("time")}},
		database.Index{Name: bare + "_time", Columns: []string{d.Quote("time")}})}}
}

// probe returns arguments of the right types.
func (p *history) probe(h *handler) []any {
	zero := map[string]any{kindText: "", kindLong: "", kindBool: false, kindNumber: int64(0), kindTime: h.time(h.env.Now())}
	args := make([]any, len(p.kinds))
	for i, kind := range p.kinds {
		args[i] = zero[kind]
	}
	return args
}

// historyStatement returns the statement that appends a message. It returns nil if the message
// belongs in none of the tables.
func (h *handler) historyStatement(kind string, body []byte) (*database.Statement, error) {
	p := h.histories[kind]
	if p == nil {
		return nil, nil
	}
	row, err := p.row(h, body)
	if row == nil || err != nil {
		return nil, err
	}
	return &database.Statement{Text: p.insert, Args: row}, nil
}

func eventRow(h *handler, body []byte) ([]any, error) {
	var e devices.Event
	if err := jsontext.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("reading an event: %w", err)
	}
	if err := errors.Join(requireKey("an event", "event_id", e.EventID != ""), requireKey("an event", "time", !e.Time.IsZero()), requireKey("an event", "epoch", e.Epoch < maxNumber),
		requireKey("an event", "generation", e.Generation < maxNumber), requireKey("an event", "seq", e.Seq < maxNumber)); err != nil {
		return nil, err
	}
	return []any{
		e.EventID, string(e.Type), e.Device, e.Online, string(e.Reason), e.RemoteAddr, e.Host, int64(e.Generation), int64(e.Epoch), int64(e.Seq), h.time(e.ConnectedAt), h.time(e.Time),
	}, nil
}

func resultRow(h *handler, body []byte) ([]any, error) {
	r, err := devices.ParseResult(body)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(requireKey("a result", "id", r.ID != ""), requireKey("a result", "time", !r.Time.IsZero()), requireKey("a result", "epoch", r.Epoch < maxNumber)); err != nil {
		return nil, err
	}
	if !r.State.Terminal() {
		return nil, nil // the terminal result has the same key
	}
	var sent struct{ Reply, Encoding string } // not decoded
	if err := jsontext.Unmarshal(body, &sent); err != nil {
		return nil, fmt.Errorf("reading a result: %w", err)
	}
	reply, encoding := storable(sent.Reply, sent.Encoding)
	return []any{r.ID, r.Device, string(r.State), int64(r.State.Code()), r.Detail, reply, encoding, r.Host, int64(r.Epoch), int64(r.Attempt), h.time(r.Time)}, nil
}

// storable returns a text that all databases accept, and its encoding. A text with a NUL, which a
// device may send, becomes base64, because PostgreSQL refuses NUL.
func storable(text, encoding string) (t, e string) {
	if !strings.Contains(text, "\x00") {
		return text, encoding
	}
	return base64.StdEncoding.EncodeToString([]byte(text)), string(devices.Base64)
}

func dataRow(h *handler, body []byte) ([]any, error) {
	var d devices.Data
	if err := jsontext.Unmarshal(body, &d); err != nil {
		return nil, fmt.Errorf("reading data: %w", err)
	}
	if err := errors.Join(requireKey("data", "data_id", d.DataID != ""), requireKey("data", "time", !d.Time.IsZero()), requireKey("data", "epoch", d.Epoch < maxNumber), requireKey("data", "seq", d.Seq < maxNumber)); err != nil {
		return nil, err
	}
	payload, encoding := storable(d.Payload, string(d.Encoding))
	return []any{d.DataID, d.Device, d.Host, int64(d.Epoch), int64(d.Seq), encoding, payload, d.Kind, d.Partial, d.LateFor, h.time(d.Time)}, nil
}

// runExpiry removes old rows at intervals until Close. It has its own connection, so that writes
// don't wait for it.
func (h *handler) runExpiry(db database.DB) {
	defer func() { _ = db.Close() }() // all its changes are committed
	tick := time.NewTicker(expireInterval)
	defer tick.Stop()
	state := outage.New(h.env.Logger, "removing old rows")
	for {
		if err := h.removeOldRows(h.life, db, h.env.Now()); err == nil || h.life.Err() == nil {
			state.Report(err)
		}
		select {
		case <-tick.C:
		case <-h.life.Done():
			return
		}
	}
}

// removeOldRows removes the rows that are older than the retention. Other hosts may do the same at
// the same time.
func (h *handler) removeOldRows(ctx context.Context, db database.DB, now time.Time) error {
	h.mu.Lock()
	ready := h.ready
	h.mu.Unlock()
	if !ready {
		return nil
	}
	d, before := db.Dialect(), h.db.Dialect().Time(now.Add(-h.History.Retention))
	for _, p := range h.histories {
		old := database.Statement{Text: d.CountOld(p.table, "time", expireStep), Args: []any{before}}
		remove := database.Statement{Text: d.RemoveOld(p.table, p.key, "time", expireStep), Args: []any{before}}
		for n := expireStep; n == expireStep; {
			err := db.Query(ctx, old, func(scan func(...any) error) error { return scan(&n) })
			if err == nil && n > 0 {
				err = db.Apply(ctx, []database.Statement{remove})
			}
			if err != nil {
				return fmt.Errorf("removing old rows of %s: %w", p.table, err)
			}
		}
	}
	return nil
}

// validateHistory reports all problems of the history tables.
func (c *Config) validateHistory(invalid func(field, format string, args ...any)) {
	taken := map[string]string{}
	if c.keepsTable() {
		taken[c.Table], taken[c.hosts()] = "table", "hosts"
	}
	for _, t := range []struct{ key, name string }{{"events", c.History.Events}, {"results", c.History.Results}, {"data", c.History.Data}} {
		at := "history." + t.key
		if t.name == "" {
			continue
		}
		if why := badName(t.name); why != "" {
			invalid(at, "%s", why)
		} else if other, ok := taken[t.name]; ok {
			invalid(at, "is already the table of %s", other)
		}
		taken[t.name] = at
	}
	if c.History.Events == "" && c.History.Results == "" && c.History.Data == "" {
		invalid("history", "names no table; allowed: events, results, data")
	}
	if c.History.Retention < 0 {
		invalid("history.retention", "is %v, must not be negative", c.History.Retention)
	}
}
