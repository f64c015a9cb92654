package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/printable"
)

// Postgres is a store in a PostgreSQL database. Several hosts may share it: each has its own rows,
// under its name.
type Postgres struct {
	url, host string

	conn   *pgx.Conn
	tables tables
}

var _ Store = (*Postgres)(nil)

// NewPostgres returns a store in the database at url, for the host of that name.
func NewPostgres(url, host string) *Postgres { return &Postgres{url: url, host: host} }

// Open implements Store. It always makes a new connection: after an error, the server of the old
// connection may have become a read-only replica.
func (s *Postgres) Open(ctx context.Context) (_ []Row, err error) {
	_ = s.Close() // its error only repeats the earlier one
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	db := stdlib.OpenDB(*s.conn.Config())
	var made time.Time
	if err = postgresDialect.Migrate(ctx, db); err == nil {
		made, err = postgresDialect.Made(ctx, db)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	rows, err := s.readRows(ctx)
	if err != nil {
		return nil, err
	}
	return rows, s.tables.adopt(made, rows)
}

// lockHost tries once to lock a host's rows. The lock lasts until the connection ends.
const lockHost = `SELECT pg_try_advisory_lock(hashtextextended('pentrough ledger ' || $1, 0))`

// whoLocked finds the session that has that lock.
const whoLocked = `SELECT a.application_name, a.backend_start, coalesce(host(a.client_addr), 'local'), a.pid
	FROM pg_locks l JOIN pg_stat_activity a USING (pid), (SELECT hashtextextended('pentrough ledger ' || $1, 0) AS key) AS k
	WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
	AND (l.classid::bigint << 32 | l.objid::bigint) = k.key`

// shortKeepalives makes the server notice within a minute that a client has vanished.
const shortKeepalives = `SELECT set_config('tcp_keepalives_idle', '30', false), set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '3', false)`

// unlockHosts releases all such locks of a connection.
const unlockHosts = `SELECT pg_advisory_unlock_all()`

// connect makes the connection and locks the host's rows.
func (s *Postgres) connect(ctx context.Context) error {
	config, _, err := database.ParsePostgres(s.url, "pentrough "+s.host)
	if err != nil {
		return err
	}
	database.Writable(config)
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	// A machine that loses its power doesn't close its connection. Without keepalives its lock
	// would stay for hours. Some servers can't set keepalives. The lock works there, too.
	_, _ = conn.Exec(ctx, shortKeepalives)
	// The server releases the lock when the connection ends, for whatever reason.
	var alone bool
	err = conn.QueryRow(ctx, lockHost, s.host).Scan(&alone)
	if err == nil && !alone {
		err = fmt.Errorf("%w; give each host a name of its own", inUse(s.lockHolder(conn.QueryRow(ctx, whoLocked, s.host).Scan)))
	}
	if err != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return err
	}
	s.conn = conn
	return nil
}

// lockHolder returns who has locked the host's rows, as far as the server knows. scan reads the
// result of whoLocked.
func (s *Postgres) lockHolder(scan func(into ...any) error) string {
	var program, from string
	var since time.Time
	var pid int
	who := fmt.Sprintf("host %q", s.host)
	if scan(&program, &since, &from, &pid) != nil {
		return who
	}
	return printable.Lines(fmt.Sprintf("%s, connected as %q from %s, process %d of the database, since %s", who, program, from, pid, since.Format(time.RFC3339)))
}

// readRows returns the host's rows, in the order of their numbers.
func (s *Postgres) readRows(ctx context.Context) ([]Row, error) {
	found, err := s.conn.Query(ctx, `SELECT number, pipeline, id, device, digest, state, attempts, outputs, message, origin FROM pentrough_ledger WHERE host = $1 ORDER BY number`, s.host)
	if err != nil {
		return nil, fmt.Errorf("reading the rows: %w", err)
	}
	return pgx.CollectRows(found, func(row pgx.CollectableRow) (Row, error) {
		var r Row
		var digest []byte
		var p parts
		err := row.Scan(&r.Number, &r.Key.Pipeline, &r.Key.ID, &r.Key.Device, &digest, &r.State, &r.Attempts, &p.outputs, &p.message, &p.origin)
		if err != nil {
			return r, fmt.Errorf("reading a row: %w", err)
		}
		err = r.decode(digest, p)
		return r, err
	})
}

// Apply implements Store. It uses one statement for all rows with the same kind of change. So the
// number of round trips doesn't depend on the number of rows.
func (s *Postgres) Apply(ctx context.Context, b Batch, sync bool) error {
	err := pgx.BeginFunc(ctx, s.conn, func(tx pgx.Tx) error { return s.applyChanges(ctx, tx, b, sync) })
	if err != nil {
		return fmt.Errorf("in the database: %w", err)
	}
	return nil
}

// Check implements Store.
func (s *Postgres) Check(ctx context.Context) error {
	if err := database.CheckWritable(ctx, s.conn); err != nil {
		return fmt.Errorf("in the database: %w", err)
	}
	return nil
}

// EnsureReserve implements Store. It does nothing, since the disk is the server's.
func (s *Postgres) EnsureReserve() error { return nil }

func (s *Postgres) applyChanges(ctx context.Context, tx pgx.Tx, b Batch, sync bool) error {
	batch := &pgx.Batch{}
	if sync {
		batch.Queue(postgresDialect.Durable)
	} else {
		batch.Queue(`SET LOCAL synchronous_commit = off`)
	}
	if len(b.Remove) > 0 {
		batch.Queue(`DELETE FROM pentrough_ledger WHERE host = $1 AND number = ANY ($2)`, s.host, b.Remove)
	}
	if len(b.Put) > 0 {
		c, err := toColumns(b.Put)
		if err != nil {
			return err
		}
		batch.Queue(`INSERT INTO pentrough_ledger (host, number, pipeline, id, device, digest, state, attempts, outputs, message, origin)
			SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::smallint[], $8::integer[], $9::bytea[], $10::bytea[], $11::bytea[])
			ON CONFLICT (host, number) DO UPDATE SET state = excluded.state, attempts = excluded.attempts, outputs = excluded.outputs, changed = excluded.changed,
			message = CASE excluded.state WHEN 3 THEN NULL ELSE coalesce(excluded.message, pentrough_ledger.message) END,
			origin = CASE excluded.state WHEN 3 THEN NULL ELSE coalesce(excluded.origin, pentrough_ledger.origin) END`,
			s.host, c.number, c.pipeline, c.id, c.device, c.digest, c.state, c.attempts, c.outputs, c.message, c.origin)
	}
	if len(b.Confirm) > 0 {
		batch.Queue(`UPDATE pentrough_ledger SET state = 3, message = NULL, origin = NULL, changed = now() WHERE host = $1 AND number = ANY ($2)`, s.host, b.Confirm)
	}
	return tx.SendBatch(ctx, batch).Close()
}

// table has the columns of rows, for unnest.
type table struct {
	number               []int64
	pipeline, id, device []string
	digest               [][]byte
	state                []int16
	attempts             []int32
	outputs, message     [][]byte
	origin               [][]byte
}

func toColumns(rows []Row) (*table, error) {
	t := &table{}
	for _, r := range rows {
		_, p, err := r.appendParts(nil)
		if err != nil {
			return nil, fmt.Errorf("writing id %q: %w", r.Key.ID, err)
		}
		t.message = append(t.message, p.message)
		t.origin = append(t.origin, p.origin)
		t.number = append(t.number, r.Number)
		t.pipeline = append(t.pipeline, r.Key.Pipeline)
		t.id = append(t.id, r.Key.ID)
		t.device = append(t.device, r.Key.Device)
		t.digest = append(t.digest, r.Digest[:])
		t.state = append(t.state, int16(r.State))
		t.attempts = append(t.attempts, int32(r.Attempts))
		t.outputs = append(t.outputs, p.outputs)
	}
	return t, nil
}

// Close implements Store.
func (s *Postgres) Close() error {
	if s.conn == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	// The server releases the lock with the connection, but only once it has noticed the end. The
	// next host may ask for the lock before that. So Close releases the lock at once.
	_, _ = s.conn.Exec(ctx, unlockHosts)
	err := s.conn.Close(ctx)
	s.conn = nil
	return err
}

// closeTimeout bounds the end of a connection whose server may be unreachable.
const closeTimeout = 2 * time.Second
