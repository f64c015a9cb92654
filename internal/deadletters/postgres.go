package deadletters

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

var postgresDialect = dialect{
	goose: goose.DialectPostgres, migrations: "postgres", versions: "pentrough_poison_schema", table: "pentrough_poison",
	exists: `SELECT to_regclass($1) IS NOT NULL`,
	now:    `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`, position: "strpos", numbered: true,
	// A database may be set to say "done" before the disk has it.
	begin:   `SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'`,
	explain: func(err error) error { return err },
}

// NewPostgres returns a store in the database at url, which hosts may share.
func NewPostgres(url, host string) *Store {
	s := &Store{place: "the database", host: host, dialect: &postgresDialect}
	config, err := pgx.ParseConfig(url)
	if err == nil {
		s.place = net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))) + "/" + config.Database
	}
	s.connect = func(context.Context, bool) (*sql.DB, error) {
		if err != nil {
			return nil, fmt.Errorf("reading the database's URL: %w", err)
		}
		c := config.Copy()
		maps.Copy(c.RuntimeParams, map[string]string{
			"application_name": "pentrough poison", "tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3",
		})
		db := stdlib.OpenDB(*c)
		db.SetMaxOpenConns(2)
		db.SetConnMaxIdleTime(time.Minute)
		return db, nil
	}
	return s
}
