package ledger

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pentrough/pentrough/internal/database"
)

var postgresDialect = dialect{
	Schema: database.Schema{Dialect: database.PostgreSQL(), Migrations: migrations, Versions: "pentrough_schema", Table: "pentrough_ledger"},
	walk:   "pentrough_ledger", changed: `(extract(epoch FROM changed) * 1000)::bigint`, byHost: true,
}

// Inspect connects for reading the host's rows, also while the host uses them.
func (s *Postgres) Inspect(ctx context.Context) (*Inspector, error) {
	in, config, err := s.newInspector()
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["default_transaction_read_only"] = "on"
	in.db = stdlib.OpenDB(*config)
	if err := in.open(ctx); err != nil {
		return nil, err
	}
	return in, nil
}

// Repair connects for removing the host's rows, and locks them against the host.
func (s *Postgres) Repair(ctx context.Context) (*Repair, error) {
	in, config, err := s.newInspector()
	if err != nil {
		return nil, err
	}
	in.db = stdlib.OpenDB(*config)
	if err := in.open(ctx); err != nil {
		return nil, err
	}
	var alone bool
	if err := in.conn.QueryRowContext(ctx, lockHost, s.host).Scan(&alone); err != nil {
		return nil, errors.Join(in.explain(err), in.Close())
	}
	if !alone {
		return nil, errors.Join(in.explain(inUse(s.lockHolder(in.conn.QueryRowContext(ctx, whoLocked, s.host).Scan))), in.Close())
	}
	return &Repair{Inspector: in, end: func() error {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_, err := in.conn.ExecContext(ctx, unlockHosts)
		return errors.Join(err, in.Close())
	}}, nil
}

func (s *Postgres) newInspector() (*Inspector, *pgx.ConnConfig, error) {
	config, place, err := database.ParsePostgres(s.url, "pentrough ledger")
	if err != nil {
		return nil, nil, err
	}
	return &Inspector{Place: place, dialect: postgresDialect, host: s.host}, config, nil
}
