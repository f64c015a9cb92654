// Package bans stores the bans of a host's devices in a database, so that they survive a restart.
//
// Start with [Open].
package bans

import (
	"context"
	"time"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/transports/device"
)

// table is the table of bans. Several hosts may share it: each has its own rows, under its name.
const table = "pentrough_bans"

// Store is a table of bans. One goroutine at a time uses it.
type Store struct {
	db       database.DB
	host     string
	migrated bool
}

// Open returns the store of a host in the database at url: see [database.Open]. It doesn't connect
// yet. A SQLite file is made when the first ban is stored.
func Open(url, host string) (*Store, error) {
	db, err := database.Open(url, "pentrough bans", 0o600)
	if err != nil {
		return nil, err
	}
	return &Store{db: db, host: host}, nil
}

// migrate makes the table if it is missing.
func (s *Store) migrate(ctx context.Context) error {
	if s.migrated {
		return nil
	}
	d := s.db.Dialect()
	err := s.db.Migrate(ctx, table+"_schema", []string{d.Create(table, []string{
		"host " + d.Types.Text + " NOT NULL", "transport " + d.Types.Text + " NOT NULL", "device " + d.Types.Text + " NOT NULL",
		"since " + d.Types.Number + " NOT NULL", "until " + d.Types.Number + " NOT NULL", "reason " + d.Types.Long + " NOT NULL",
		"PRIMARY KEY (host, transport, device)",
	})})
	s.migrated = err == nil
	return database.Explain(err)
}

// Load returns the bans in force, by the names of their transports.
func (s *Store) Load(ctx context.Context) (map[string][]device.Ban, error) {
	if database.Absent(s.db) != "" {
		return nil, nil
	}
	if err := s.migrate(ctx); err != nil {
		return nil, err
	}
	d := s.db.Dialect()
	all := map[string][]device.Ban{}
	err := s.db.Query(ctx, database.Statement{
		Text: "SELECT transport, device, since, until, reason FROM " + table + " WHERE host = " + d.Parameter(1) + " AND (until = 0 OR until > " + d.Parameter(2) + ")",
		Args: []any{s.host, time.Now().UnixMilli()},
	}, func(scan func(...any) error) error {
		var transport string
		var b device.Ban
		var since, until int64
		if err := scan(&transport, &b.Device, &since, &until, &b.Reason); err != nil {
			return err
		}
		b.Since = time.UnixMilli(since)
		if until != 0 {
			b.Until = time.UnixMilli(until)
		}
		all[transport] = append(all[transport], b)
		return nil
	})
	return all, database.Explain(err)
}

// Put stores a ban in place of an older one of the device. It also removes the host's bans that
// are over.
func (s *Store) Put(ctx context.Context, transport string, b device.Ban) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	d := s.db.Dialect()
	until := int64(0)
	if !b.Until.IsZero() {
		until = b.Until.UnixMilli()
	}
	return database.Explain(s.db.Apply(ctx, []database.Statement{
		{Text: "DELETE FROM " + table + " WHERE host = " + d.Parameter(1) + " AND until > 0 AND until <= " + d.Parameter(2), Args: []any{s.host, time.Now().UnixMilli()}},
		s.removal(transport, b.Device),
		{
			Text: d.InsertNew(table, []string{"host", "transport", "device", "since", "until", "reason"}, []string{"host", "transport", "device"}),
			Args: []any{s.host, transport, b.Device, b.Since.UnixMilli(), until, b.Reason},
		},
	}))
}

// Remove removes the ban of a device, if there is one.
func (s *Store) Remove(ctx context.Context, transport, device string) error {
	if database.Absent(s.db) != "" {
		return nil
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	return database.Explain(s.db.Apply(ctx, []database.Statement{s.removal(transport, device)}))
}

func (s *Store) removal(transport, device string) database.Statement {
	d := s.db.Dialect()
	return database.Statement{
		Text: "DELETE FROM " + table + " WHERE host = " + d.Parameter(1) + " AND transport = " + d.Parameter(2) + " AND device = " + d.Parameter(3),
		Args: []any{s.host, transport, device},
	}
}

// Close ends the use of the store.
func (s *Store) Close() error { return s.db.Close() }
