package database

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

var postgresDialect = Dialect{
	Name: "PostgreSQL", Numbered: true, quote: `"`,
	goose: goose.DialectPostgres, migrations: "postgres", exists: `SELECT to_regclass($1) IS NOT NULL`,
	// A database may be configured to confirm a commit before the disk has it.
	Durable: `SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'`,
	Types:   Types{Text: "text", Long: "text", Bool: "boolean", Number: "bigint", Time: "timestamptz"},
	Time:    func(t time.Time) any { return t },
}

// PostgreSQL returns the dialect of PostgreSQL.
func PostgreSQL() Dialect { return postgresDialect }

// ParsePostgres returns the settings for connections to a URL, and its place without secrets. The
// server shows name as the name of the connection's program.
func ParsePostgres(url, name string) (config *pgx.ConnConfig, place string, err error) {
	if config, err = pgx.ParseConfig(url); err != nil {
		return nil, "", fmt.Errorf("reading the database's URL: %w", err)
	}
	// With keepalives the server notices a connection that vanished. Otherwise it would keep the
	// locks of that connection for hours.
	maps.Copy(config.RuntimeParams, map[string]string{
		"application_name": name, "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
	})
	return config, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))) + "/" + config.Database, nil
}

// Writable makes connections go only to a writable server. If a URL names several servers, the
// connection goes to the writable one. target_session_attrs in the URL takes precedence.
func Writable(config *pgx.ConnConfig) {
	if config.ValidateConnect == nil {
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
}

// CheckWritable returns an error if a connection's server is read-only. It may have become a
// replica after the connection was made.
func CheckWritable(ctx context.Context, conn *pgx.Conn) error {
	var readOnly bool
	err := conn.QueryRow(ctx, `SELECT current_setting('transaction_read_only')::bool`).Scan(&readOnly)
	if err == nil && readOnly {
		return errReadOnly
	}
	return err
}

var errReadOnly = errors.New("the server is read-only: it is a replica, or is configured so")

// postgres is a database with one connection.
type postgres struct {
	config *pgx.ConnConfig
	conn   *pgx.Conn
	filled filled
}

func openPostgres(url, name string) (DB, error) {
	config, _, err := ParsePostgres(url, name)
	if err != nil {
		return nil, err
	}
	return &postgres{config: config}, nil
}

func (p *postgres) Dialect() Dialect { return postgresDialect }

func (p *postgres) connect(ctx context.Context) error {
	if p.conn != nil && !p.conn.IsClosed() {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, p.config)
	if err != nil {
		return fmt.Errorf("connecting to the database: %w", err)
	}
	p.conn, p.filled = conn, filled{}
	return nil
}

// withConnection calls f with a connection and gives its error a kind.
func (p *postgres) withConnection(ctx context.Context, f func() error) error {
	if err := p.connect(ctx); err != nil {
		return err
	}
	err := judgePostgres(retryLost(ctx, f, lostPostgres), !p.conn.IsClosed())
	if err != nil && KindOf(err) == Outage {
		_ = p.Close() // err is the cause; the next connection may reach a usable server
	}
	return err
}

// CheckPlace implements DB.
func (p *postgres) CheckPlace(ctx context.Context) error {
	return p.withConnection(ctx, func() error { return CheckWritable(ctx, p.conn) })
}

// Apply implements DB. It sends all statements in one batch, which takes one round trip.
// PostgreSQL executes a batch without BEGIN and COMMIT as one transaction.
func (p *postgres) Apply(ctx context.Context, all []Statement) error {
	return p.withConnection(ctx, func() error {
		all, err := p.filled.convertAll(all, p.columns(ctx))
		if err != nil {
			return err
		}
		batch := &pgx.Batch{}
		for _, s := range all {
			batch.Queue(s.Text, s.Args...)
		}
		return p.conn.SendBatch(ctx, batch).Close()
	})
}

func (p *postgres) Query(ctx context.Context, s Statement, row func(scan func(dest ...any) error) error) error {
	return p.withConnection(ctx, func() error {
		found, err := p.conn.Query(ctx, s.Text, s.Args...)
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			if err := row(found.Scan); err != nil {
				return err
			}
		}
		found.Close()
		return found.Err()
	})
}

// columns returns a function that finds the columns that the parameters of a statement fill. A
// parameter without a known column has the type that PostgreSQL gives it.
func (p *postgres) columns(ctx context.Context) func(Statement) ([]column, error) {
	return func(s Statement) ([]column, error) {
		all := make([]column, len(s.Args))
		described, err := p.conn.Prepare(ctx, "", s.Text)
		if err != nil {
			return nil, err
		}
		for i, oid := range described.ParamOIDs {
			all[i] = postgresColumn(oid, -1, p.typeName(oid))
		}
		query, params := postgresDialect.columnsQuery(s.Text)
		if query == "" {
			return all, nil
		}
		if described, err = p.conn.Prepare(ctx, "", query); err != nil {
			return nil, err
		}
		for i, f := range described.Fields {
			all[params[i]] = postgresColumn(f.DataTypeOID, f.TypeModifier, p.typeName(f.DataTypeOID))
		}
		return all, nil
	}
}

func (p *postgres) typeName(oid uint32) string {
	if t, ok := p.conn.TypeMap().TypeForOID(oid); ok {
		return t.Name
	}
	return fmt.Sprintf("number %d", oid)
}

// Explain implements DB.
func (p *postgres) Explain(ctx context.Context, s Statement) error {
	var fitted []Statement
	if err := p.withConnection(ctx, func() (err error) {
		fitted, err = p.filled.convertAll([]Statement{s}, p.columns(ctx))
		return err
	}); err != nil {
		return err
	}
	return p.Query(ctx, Statement{Text: "EXPLAIN " + s.Text, Args: fitted[0].Args}, func(func(...any) error) error { return nil })
}

// CheckKey implements DB. Explain reports a missing index.
func (p *postgres) CheckKey(context.Context, string, string) error { return nil }

func (p *postgres) Migrate(ctx context.Context, versions string, steps []string) error {
	return p.withConnection(ctx, func() error {
		db := stdlib.OpenDB(*p.config)
		err := migrateSteps(ctx, goose.DialectPostgres, db, versions, steps)
		return errors.Join(err, db.Close())
	})
}

// closeTimeout bounds the end of a connection whose server may be unreachable.
const closeTimeout = 2 * time.Second

func (p *postgres) Close() error {
	if p.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := p.conn.Close(ctx)
	p.conn = nil
	return err
}
