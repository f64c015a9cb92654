package sql

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/transports"
	devices "github.com/pentrough/pentrough/transports/device"
)

func init() {
	handlers.Register(handlers.Plugin{
		Name:        "sql",
		Summary:     "Keeps a database's table of devices true: who is there, last result, last data.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Writes what messages of the types `event`, `result` and `data` say of a device to its row in PostgreSQL (`postgres://...`), MySQL or MariaDB (`mysql://...`), or SQLite (`sqlite:PATH`). One pipeline for each of them, or one for all:\n\n" +
	"```toml\n[handler.status]\ntype = \"sql\"\nurl  = \"${DATABASE_URL}\"\n\n[pipeline.status]\nfrom       = \"broker:status\"\nmiddleware = [\"poison\", \"retry\"]\nhandler    = \"status\"\n```\n\n" +
	"Without `columns` the table is made, with the columns that [databases](../databases.md) lists. With `columns` it is your own, and only the columns that are named there are ever written.\n\n" +
	"With `statement` there is no such table: your own statement runs for each message, with [named parameters](../databases.md#your-own-statement).\n\n" +
	"Repetitions, late messages and any order of them change nothing: an event counts if its (epoch, seq) is greater than the row's, data if its own is, a result if its time is later. The devices of a host that is lost go offline " +
	"with the reason `node_lost`, and come back with its next heartbeat.\n\n" +
	"A batch is one transaction, and each message is acked when it is committed. A row that the database refuses is *permanent*, with the database's own words, and costs its neighbours nothing. A database that is away, read-only, full or too slow is *unavailable*: " +
	"the pipeline waits, and the messages stay with the broker. It produces nothing."

// Config is the configuration of sql.
type Config struct {
	URL     transports.Secret `toml:"url" schemes:"postgres,postgresql,mysql,mariadb,sqlite:" doc:"The database: postgres://USER:PASSWORD@HOST:PORT/NAME, mysql://USER:PASSWORD@HOST:PORT/NAME, or sqlite:PATH." example:"\"${DATABASE_URL}\"" required:"true" secret:"true"`
	Mode    string            `toml:"mode" doc:"The permissions of a SQLite file that is made, in octal, whatever the umask; default: 0644 less the umask. A file that is there keeps its own." example:"\"0600\""`
	Table   string            `toml:"table" doc:"The table of devices. A dot separates a schema from it."`
	Key     string            `toml:"key" doc:"The column that names the device; it has a unique index."`
	Columns map[string]string `toml:"columns" doc:"The columns of your own table, by what they hold: connected, online, reason, remote_addr, host, generation, epoch, seq, connected_at, changed_at, last_result_id, last_result_state, last_result_at, results, last_data_at, data_epoch, data_seq, data, last_seen." example:"{ connected = \"is_connected\", epoch = \"epoch\", seq = \"seq\", last_seen = \"seen_at\" }"`
	Insert  bool              `toml:"insert" doc:"Whether a device that has no row gets one. Without it only rows that are there are changed."`
	Migrate bool              `toml:"migrate" doc:"Whether the tables that are the handler's own are made and updated: that of the devices, unless columns says that it is yours, and that of the hosts."`
	Hosts   string            `toml:"hosts" doc:"The handler's own table of hosts, needed for online. Default: the table's name with _hosts behind it."`
	// Statement and Types are the user's own statement, in place of a table of devices.
	Statement string   `toml:"statement" doc:"Your own statement for each message, in place of a table of devices, with named parameters: :device, :time, :payload.temp, :meta.KEY. Values are always parameters." example:"\"INSERT INTO readings (device, at, value) VALUES (:device, :time, :payload.temp) ON CONFLICT DO NOTHING\""`
	Types     []string `toml:"types" doc:"The types of messages that the statement is for; others are left alone." enum:"event,result,data"`

	History *History `toml:"history" doc:"Tables to which messages are appended, each message once."`

	Silence time.Duration `toml:"silence" doc:"How long a host may be silent before its devices count as offline; a host's heartbeats come every 10s." min:"10s"`
	Timeout time.Duration `toml:"timeout" doc:"How long the database may take for a batch before it counts as away." min:"1s"`
}

var defaults = Config{Table: "devices", Key: "device", Insert: true, Migrate: true, Types: []string{devices.TypeEvent, devices.TypeResult, devices.TypeData}, Silence: 35 * time.Second, Timeout: 30 * time.Second}

// open returns the database, which isn't connected yet. name is what the server shows of it.
func (c *Config) open(name string) (database.DB, error) {
	mode, err := c.mode()
	if err != nil {
		return nil, err
	}
	return database.Open(string(c.URL), name, mode)
}

var _ handlers.Risky = (*Config)(nil)

// Risks implements handlers.Risky.
func (c *Config) Risks() map[string]string {
	return map[string]string{"url": database.Risk(string(c.URL))}
}

// mode returns the permissions of a file that is made, and zero where the umask decides.
func (c *Config) mode() (fs.FileMode, error) {
	if c.Mode == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(c.Mode, 8, 32)
	switch {
	case err != nil || n > 0o777:
		return 0, handlers.Invalid("mode", "is %q; permissions in octal are from 0600 to 0777, such as 0640", c.Mode)
	case n&0o600 != 0o600:
		return 0, handlers.Invalid("mode", "is %q: the host has to read and write the file, as 0600 lets its owner", c.Mode)
	}
	return fs.FileMode(n), nil
}

// columns are the table's.
func (c *Config) columns() columns {
	if !c.keepsTable() {
		return columns{}
	}
	if len(c.Columns) == 0 {
		return readyMade()
	}
	cols := columns{}
	for name, column := range c.Columns {
		cols[field(name)] = column
	}
	return cols
}

// makesTable reports whether a start makes what isn't there.
func (c *Config) makesTable() bool { return c.Migrate && (c.keepsTable() || c.History != nil) }

// keepsTable reports whether there is a table of devices.
func (c *Config) keepsTable() bool { return c.Statement == "" }

func (c *Config) hosts() string {
	if c.Hosts != "" {
		return c.Hosts
	}
	return c.Table + "_hosts"
}

// indexName is that of the index by hosts, which lies in the schema of its table.
func (c *Config) indexName() string { return bareName(c.Table) + "_host" }

// bareName is a table's name without its schema.
func bareName(table string) string { return table[strings.LastIndexByte(table, '.')+1:] }

// Validate reports all problems.
func (c *Config) Validate() error {
	var errs []error
	invalid := func(field, format string, args ...any) {
		errs = append(errs, handlers.Invalid(field, format, args...))
	}
	if _, err := c.mode(); err != nil {
		errs = append(errs, err)
	} else if c.Mode != "" && !strings.HasPrefix(string(c.URL), "sqlite:") {
		invalid("mode", "is for a SQLite file")
	}
	withoutMode := *c
	withoutMode.Mode = ""
	if c.URL == "" {
		invalid("url", "is missing; it names the database")
	} else if db, err := withoutMode.open(""); err != nil {
		invalid("url", "%v", err)
	} else if _, err := c.named(db.Dialect()); err != nil {
		errs = append(errs, err)
	}
	if c.Statement != "" && (len(c.Columns) > 0 || c.Table != defaults.Table || c.Hosts != "") {
		invalid("statement", "stands in place of a table of devices: leave out table, columns and hosts, or have a handler for each")
	}
	if c.History != nil {
		c.validateHistory(invalid)
	}
	switch {
	case len(c.Types) == 0:
		invalid("types", "names no type")
	case c.Statement == "" && !slices.Equal(c.Types, defaults.Types):
		invalid("types", "is for a statement, and there is none")
	}
	for _, name := range []struct{ key, value string }{{"table", c.Table}, {"key", c.Key}, {"hosts", c.hosts()}} {
		if why := badName(name.value); why != "" {
			invalid(name.key, "%s", why)
		}
	}
	if c.hosts() == c.Table {
		invalid("hosts", "is the table of the devices")
	}
	if len(c.Columns) == 0 && c.Key != defaults.Key {
		invalid("key", "is for a table of your own, which has columns; that of the handler's own is %q", defaults.Key)
	}
	c.validateColumns(invalid)
	if c.Silence < 10*time.Second {
		invalid("silence", "is %v, must be at least 10s", c.Silence)
	}
	if c.Timeout < time.Second {
		invalid("timeout", "is %v, must be at least 1s", c.Timeout)
	}
	return errors.Join(errs...)
}

func (c *Config) validateColumns(invalid func(field, format string, args ...any)) {
	taken := map[string]string{c.Key: "key"}
	for _, f := range c.columns().sorted() {
		if len(c.Columns) == 0 {
			return
		}
		column := c.Columns[string(f)]
		at := "columns." + string(f)
		if !slices.Contains(known(), f) {
			invalid(at, "is nothing that a device's row holds; %s are", listed(known()))
			continue
		}
		if why := badName(column); why != "" {
			invalid(at, "%s", why)
		} else if other, ok := taken[column]; ok {
			invalid(at, "is the column %q, which %s has", column, other)
		} else {
			taken[column] = at
		}
		var missing []field
		for _, n := range needs[f] {
			if c.Columns[string(n)] == "" {
				missing = append(missing, n)
			}
		}
		if len(missing) > 0 {
			invalid(at, "needs columns for %s as well", listed(missing))
		}
	}
}

func listed(all []field) string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

// badName says why a name isn't one of a table or column, or "".
func badName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '?' }):
		return "has a character that a name can't have"
	case strings.Contains("."+name+".", ".."):
		return "has an empty part"
	}
	return ""
}

// New builds the handler.
func (c *Config) New(env handlers.Env) (handlers.Handler, error) {
	h, err := c.build(env)
	if err != nil {
		return nil, err
	}
	h.work.Go(h.tend)
	if h.History != nil && h.History.Retention > 0 {
		db, err := c.open("pentrough " + env.Host + " " + env.Pipeline)
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		h.work.Go(func() { h.forget(db) })
	}
	return h, nil
}

// Check implements handlers.Checker.
func (c *Config) Check(ctx context.Context) []transports.Check {
	check := transports.Check{Part: "table " + c.Table}
	if !c.keepsTable() {
		check.Part = "statement"
	}
	h, err := c.build(handlers.Env{Host: "check", Now: time.Now})
	if err != nil {
		check.Err = err
		return []transports.Check{check}
	}
	defer func() { _ = h.Close() }() // nothing is lost with it
	if path := database.Absent(h.db); path != "" {
		check.Found, check.Missing = "there is no file "+path, true
		if !c.makesTable() || len(c.Columns) > 0 {
			check.Missing, check.Err = false, errors.New("there is no file "+path)
		}
		return []transports.Check{check}
	}
	err = h.explain(ctx)
	switch {
	case err == nil:
		check.Found = "fits"
	case database.KindOf(err) == database.Outage:
		check.Err, check.Next = err, "start the database, or correct url"
	case c.makesAll(ctx, h):
		check.Found, check.Missing = "isn't there", true
	default:
		check.Err, check.Next = err, "correct what the handler says, or the table"
	}
	return []transports.Check{check}
}

// makesAll reports whether what isn't there is what a start makes.
func (c *Config) makesAll(ctx context.Context, h *handler) bool {
	if !c.makesTable() {
		return false
	}
	missing := false
	for _, s := range c.schemas(h.db.Dialect()) {
		missing = missing || h.db.Explain(ctx, database.Statement{Text: "SELECT 1 FROM " + h.db.Dialect().Quote(s.table)}) != nil
	}
	switch {
	case !missing:
		return false
	case !c.keepsTable():
		return h.db.Explain(ctx, h.named.probe(h.time(h.env.Now()))) == nil
	case len(c.Columns) == 0:
		return true
	}
	for _, t := range []*template{h.changes.event, h.changes.result, h.changes.data} {
		if t == nil {
			continue
		}
		if err := h.db.Explain(ctx, database.Statement{Text: t.text, Args: make([]any, len(t.args))}); err != nil {
			return false
		}
	}
	return true
}
