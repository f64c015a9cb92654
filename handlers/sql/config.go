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
		Summary:     "Keeps a table of devices in a database: presence, last result, last data.",
		Description: description,
		Config:      func() handlers.Config { c := defaults; return &c },
	})
}

const description = "Writes messages of the types `event`, `result` and `data` to a database. Each device " +
	"has one row, with its presence, last result and last data. The database is PostgreSQL " +
	"(`postgres://...`), MySQL or MariaDB (`mysql://...`), or SQLite (`sqlite:PATH`). Each " +
	"type may have its own pipeline, or one pipeline may carry all:\n\n" +
	"```toml\n" +
	"[handler.status]\n" +
	"type = \"sql\"\n" +
	"url  = \"${DATABASE_URL}\"\n\n" +
	"[pipeline.status]\n" +
	"from       = \"broker:status\"\n" +
	"middleware = [\"poison\", \"retry\"]\n" +
	"handler    = \"status\"\n" +
	"```\n\n" +
	"Without `columns` the handler makes the table, with the columns that " +
	"[databases](../databases.md) lists. With `columns` the table is yours, and the handler " +
	"writes only the columns that you name.\n\n" +
	"With `statement` there is no table of devices. Your own statement runs for each " +
	"message, with [named parameters](../databases.md#your-own-statement).\n\n" +
	"Repeated, late and reordered messages don't change the outcome. An event counts if its " +
	"(epoch, seq) is greater than that of the newest event in the row. Data is compared " +
	"with the newest data in the same way. A result counts if its time is later. If a host " +
	"is lost, its devices go offline with the reason `node_lost`. The devices are online " +
	"again after the host's next heartbeat.\n\n" +
	"A batch of messages is one transaction. The handler acks each message when it is " +
	"committed. If the database refuses a row, only the message of that row fails, with a " +
	"*permanent* error that has the text of the database. If the database can't be reached, " +
	"is read-only, full or too slow, the error is *unavailable*: the pipeline pauses, and " +
	"the messages stay in the broker. The handler produces no messages."

// Config is the configuration of sql.
type Config struct {
	URL     transports.Secret `toml:"url" doc:"The database: postgres://USER:PASSWORD@HOST:PORT/NAME, mysql://USER:PASSWORD@HOST:PORT/NAME, or sqlite:PATH." example:"\"${DATABASE_URL}\"" required:"true" secret:"true" schemes:"postgres,postgresql,mysql,mariadb,sqlite:"`
	Mode    string            `toml:"mode" doc:"The permissions of a new SQLite file, in octal; the umask doesn't change them. Default: 0644 without the bits of the umask. An existing file keeps its permissions." example:"\"0600\""`
	Table   string            `toml:"table" doc:"The table of devices, with a schema and a dot before it if needed."`
	Key     string            `toml:"key" doc:"The column with the device's name. It needs a unique index."`
	Columns map[string]string `toml:"columns" doc:"The columns of your own table, by the field that each contains: connected, online, reason, remote_addr, host, generation, epoch, seq, connected_at, changed_at, last_result_id, last_result_state, last_result_at, results, last_data_at, data_epoch, data_seq, data, last_seen." example:"{ connected = \"is_connected\", epoch = \"epoch\", seq = \"seq\", last_seen = \"seen_at\" }"`
	Insert  bool              `toml:"insert" doc:"Whether the handler makes a row for a device that has none. If false, it changes only rows that exist."`
	Migrate bool              `toml:"migrate" doc:"Whether the handler makes and updates its own tables: the table of hosts, the tables of history and, without columns, the table of devices."`
	Hosts   string            `toml:"hosts" doc:"The handler's own table of hosts, which online needs. Default: the name of the table of devices, followed by _hosts."`
	// Statement and Types are for a statement of the user instead of a table of devices.
	Statement string   `toml:"statement" doc:"Your own statement, which runs for each message instead of keeping a table of devices. It has named parameters: :device, :time, :payload.temp, :meta.KEY. Values are never inserted into the text." example:"\"INSERT INTO readings (device, at, value) VALUES (:device, :time, :payload.temp) ON CONFLICT DO NOTHING\""`
	Types     []string `toml:"types" doc:"The types of messages that the statement runs for. Others are acked without it." enum:"event,result,data"`

	History *History `toml:"history" doc:"Tables to which messages are appended, each message once."`

	Silence time.Duration `toml:"silence" doc:"How long a host may be silent before its devices count as offline. A host sends a heartbeat every 10s." min:"10s"`
	Timeout time.Duration `toml:"timeout" doc:"How long the database may take for a batch before it counts as unavailable." min:"1s"`
}

var defaults = Config{Table: "devices", Key: "device", Insert: true, Migrate: true, Types: []string{devices.TypeEvent, devices.TypeResult, devices.TypeData}, Silence: 35 * time.Second, Timeout: 30 * time.Second}

// open returns the database without connecting to it. The server shows the name of the connection.
func (c *Config) open(name string) (database.DB, error) {
	mode, err := c.mode()
	if err != nil {
		return nil, err
	}
	return database.Open(string(c.URL), name, mode)
}

var _ handlers.Risky = (*Config)(nil)

// Risks warns if the connection to the database isn't encrypted. It implements handlers.Risky.
func (c *Config) Risks() map[string]string {
	return map[string]string{"url": database.Risk(string(c.URL))}
}

// mode returns the permissions of a new file, or 0 if the umask decides.
func (c *Config) mode() (fs.FileMode, error) {
	if c.Mode == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(c.Mode, 8, 32)
	switch {
	case err != nil || n > 0o777:
		return 0, handlers.Invalid("mode", "is %q; permissions in octal are from 0600 to 0777, such as 0640", c.Mode)
	case n&0o600 != 0o600:
		return 0, handlers.Invalid("mode", "is %q; the owner has to read and write the file, as with 0600", c.Mode)
	}
	return fs.FileMode(n), nil
}

// columns returns the columns of the table of devices.
func (c *Config) columns() columns {
	if !c.keepsTable() {
		return columns{}
	}
	if len(c.Columns) == 0 {
		return defaultColumns()
	}
	cols := columns{}
	for name, column := range c.Columns {
		cols[field(name)] = column
	}
	return cols
}

// makesTable reports whether the handler makes missing tables.
func (c *Config) makesTable() bool { return c.Migrate && (c.keepsTable() || c.History != nil) }

// keepsTable reports whether there is a table of devices.
func (c *Config) keepsTable() bool { return c.Statement == "" }

func (c *Config) hosts() string {
	if c.Hosts != "" {
		return c.Hosts
	}
	return c.Table + "_hosts"
}

// indexName returns the name of the index by hosts, which is in the schema of its table.
func (c *Config) indexName() string { return bareName(c.Table) + "_host" }

// bareName returns a table's name without its schema.
func bareName(table string) string { return table[strings.LastIndexByte(table, '.')+1:] }

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	invalid := func(field, format string, args ...any) {
		errs = append(errs, handlers.Invalid(field, format, args...))
	}
	if _, err := c.mode(); err != nil {
		errs = append(errs, err)
	} else if c.Mode != "" && !strings.HasPrefix(string(c.URL), "sqlite:") {
		invalid("mode", "is only for a SQLite file")
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
		invalid("statement", "replaces the table of devices: leave out table, columns and hosts, or use two handlers")
	}
	if c.History != nil {
		c.validateHistory(invalid)
	}
	switch {
	case len(c.Types) == 0:
		invalid("types", "names no type")
	case c.Statement == "" && !slices.Equal(c.Types, defaults.Types):
		invalid("types", "is only for a statement")
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
		invalid("key", "is only for your own table, with columns; the key of the handler's table is %q", defaults.Key)
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
		if !slices.Contains(deviceFields(), f) {
			invalid(at, "is no field of a device's row; allowed: %s", fieldNames(deviceFields()))
			continue
		}
		if why := badName(column); why != "" {
			invalid(at, "%s", why)
		} else if other, ok := taken[column]; ok {
			invalid(at, "is the column %q, which %s already uses", column, other)
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
			invalid(at, "also needs columns for %s", fieldNames(missing))
		}
	}
}

func fieldNames(all []field) string {
	names := make([]string, len(all))
	for i, f := range all {
		names[i] = string(f)
	}
	return strings.Join(names, ", ")
}

// badName returns why a table or column can't have a name, or "".
func badName(name string) string {
	switch {
	case name == "":
		return "is empty"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || r == '?' }):
		return "has a character that isn't allowed in a name"
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
	h.work.Go(h.runChecks)
	if h.History != nil && h.History.Retention > 0 {
		db, err := c.open("pentrough " + env.Host + " " + env.Pipeline)
		if err != nil {
			return nil, errors.Join(err, h.Close())
		}
		h.work.Go(func() { h.runExpiry(db) })
	}
	return h, nil
}

// Check reports whether the tables exist and fit. It implements handlers.Checker.
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
	defer func() { _ = h.Close() }() // nothing was written
	if path := database.Absent(h.db); path != "" {
		check.Found, check.Missing = "there is no file "+path, true
		if !c.makesTable() || len(c.Columns) > 0 {
			check.Missing, check.Err = false, errors.New("there is no file "+path)
		}
		return []transports.Check{check}
	}
	err = h.explainStatements(ctx)
	switch {
	case err == nil:
		check.Found = "fits"
	case database.KindOf(err) == database.Outage:
		check.Err, check.Next = err, "start the database, or correct url"
	case c.makesAll(ctx, h):
		check.Found, check.Missing = "isn't there", true
	default:
		check.Err, check.Next = err, "correct the handler's settings, or the table"
	}
	return []transports.Check{check}
}

// makesAll reports whether a start would make everything that is missing.
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
