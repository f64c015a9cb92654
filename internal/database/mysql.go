package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
)

var mysqlDialect = Dialect{
	Name: "MySQL", quote: "`", OnDuplicateKey: true,
	// A text that is a key has a maximum length. With this collation a text equals only itself.
	Types: Types{Text: "varchar(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", Long: "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", Bool: "boolean", Number: "bigint", Time: "datetime(6)"},
	Time:  func(t time.Time) any { return t.UTC().Truncate(time.Microsecond) },
}

// mysqlServer is a database of MySQL or MariaDB, with one connection.
type mysqlServer struct {
	config *mysql.Config

	db       *sql.DB
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
	filled   filled
}

func openMySQL(text, name string) (DB, error) {
	u, err := url.Parse(text)
	if err != nil {
		// The cause would show the password.
		return nil, errors.New("isn't a URL such as mysql://USER:PASSWORD@HOST:PORT/NAME")
	}
	c := mysql.NewConfig()
	c.Net, c.Addr, c.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	if u.Port() == "" {
		c.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	if c.DBName == "" {
		return nil, errors.New("names no database; write mysql://HOST/NAME")
	}
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.Loc, c.Timeout, c.Logger = time.UTC, 10*time.Second, &mysql.NopLogger{}
	c.ConnectionAttributes = "program_name:" + strings.NewReplacer(",", " ", ":", " ").Replace(name)
	// A value that doesn't fit is an error, and isn't cut off.
	c.Params = map[string]string{"sql_mode": "'STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'", "time_zone": "'+00:00'"}
	for key, values := range u.Query() {
		switch value := values[len(values)-1]; key {
		case "tls":
			c.TLSConfig = value
		case "socket":
			c.Net, c.Addr = "unix", value
		default:
			return nil, fmt.Errorf("has the unknown parameter %q; allowed: tls, socket", key)
		}
	}
	if allowed := []string{"", "true", "false", "skip-verify", "preferred"}; !slices.Contains(allowed, c.TLSConfig) {
		return nil, fmt.Errorf("has tls=%s; allowed: %s", c.TLSConfig, strings.Join(allowed[1:], ", "))
	}
	return &mysqlServer{config: c}, nil
}

func (m *mysqlServer) Dialect() Dialect { return mysqlDialect }

func (m *mysqlServer) connect(ctx context.Context) error {
	if m.conn != nil {
		return nil
	}
	connector, err := mysql.NewConnector(m.config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err == nil {
		// With this level, gaps between rows aren't locked, so that writers of other rows don't
		// wait.
		_, err = conn.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("connecting to the database: %w", err), db.Close())
	}
	m.db, m.conn, m.prepared, m.filled = db, conn, map[string]*sql.Stmt{}, filled{}
	return nil
}

// withConnection calls f with a connection and gives its error a kind. After an outage it closes
// the connection, so that the next call makes another one.
func (m *mysqlServer) withConnection(ctx context.Context, f func() error) error {
	if err := m.connect(ctx); err != nil {
		return judgeMySQL(err)
	}
	err := judgeMySQL(retryLost(ctx, f, lostMySQL))
	if err != nil && KindOf(err) == Outage {
		_ = m.Close() // err is the cause
	}
	return err
}

func (m *mysqlServer) execute(ctx context.Context, s Statement) error {
	prepared, ok := m.prepared[s.Text]
	if !ok {
		var err error
		if prepared, err = m.conn.PrepareContext(ctx, s.Text); err != nil {
			return err
		}
		m.prepared[s.Text] = prepared
	}
	_, err := prepared.ExecContext(ctx, s.Args...)
	return err
}

// Apply implements DB.
func (m *mysqlServer) Apply(ctx context.Context, all []Statement) error {
	return m.withConnection(ctx, func() error {
		all, err := m.filled.convertAll(all, m.columns(ctx))
		if err == nil {
			_, err = m.conn.ExecContext(ctx, "BEGIN")
		}
		for _, s := range all {
			if err != nil {
				break
			}
			err = m.execute(ctx, s)
		}
		if err == nil {
			_, err = m.conn.ExecContext(ctx, "COMMIT")
		}
		if err != nil {
			// ROLLBACK has no effect if the failure has ended the transaction.
			_, _ = m.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		}
		return err
	})
}

func (m *mysqlServer) Query(ctx context.Context, s Statement, row func(scan func(dest ...any) error) error) error {
	return m.withConnection(ctx, func() error {
		found, err := m.conn.QueryContext(ctx, s.Text, s.Args...)
		if err != nil {
			return err
		}
		for found.Next() {
			if err = row(found.Scan); err != nil {
				break
			}
		}
		return errors.Join(err, found.Close(), found.Err())
	})
}

func (m *mysqlServer) columns(ctx context.Context) func(Statement) ([]column, error) {
	return func(s Statement) ([]column, error) { return sqlColumns(ctx, m.conn, mysqlDialect, s, mysqlColumn) }
}

// Explain implements DB: preparing a statement finds its tables and columns.
func (m *mysqlServer) Explain(ctx context.Context, s Statement) error {
	return m.withConnection(ctx, func() error {
		prepared, err := m.conn.PrepareContext(ctx, s.Text)
		if err != nil {
			return err
		}
		_, err = m.filled.convertAll([]Statement{s}, m.columns(ctx))
		return errors.Join(err, prepared.Close())
	})
}

// CheckKey implements DB. Without a unique index, ON DUPLICATE KEY has no effect and reports no
// error.
func (m *mysqlServer) CheckKey(ctx context.Context, table, column string) error {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		schema, name = m.config.DBName, table
	}
	n := 0
	err := m.Query(ctx, Statement{
		Text: "SELECT count(*) FROM (SELECT index_name FROM information_schema.statistics WHERE table_schema = ? AND table_name = ? AND non_unique = 0" +
			" GROUP BY index_name HAVING count(*) = 1 AND max(column_name) = ?) AS found",
		Args: []any{schema, name, column},
	}, func(scan func(...any) error) error { return scan(&n) })
	if err == nil && n == 0 {
		err = &fault{fmt.Errorf("the table %s has no unique index on the column %s alone", table, column)}
	}
	return err
}

// Migrate implements DB. In MySQL a transaction can't include a change of tables. So a step may be
// executed twice, and must allow that.
func (m *mysqlServer) Migrate(ctx context.Context, versions string, steps []string) error {
	connector, err := mysql.NewConnector(m.config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	err = migrateSteps(ctx, goose.DialectMySQL, db, versions, steps)
	return judgeMySQL(errors.Join(err, db.Close()))
}

// CheckPlace implements DB. A read-only server refuses the transaction, unless the user has the
// privilege to write to it.
func (m *mysqlServer) CheckPlace(ctx context.Context) error {
	return m.withConnection(ctx, func() error {
		_, err := m.conn.ExecContext(ctx, "START TRANSACTION READ WRITE")
		if err == nil {
			_, err = m.conn.ExecContext(ctx, "ROLLBACK")
		}
		return err
	})
}

func (m *mysqlServer) Close() error {
	if m.conn == nil {
		return nil
	}
	// The statements end with their connection, which may be broken.
	_, _ = m.conn.Close(), m.db.Close()
	m.conn, m.db, m.prepared = nil, nil, nil
	return nil
}
