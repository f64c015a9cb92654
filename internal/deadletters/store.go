package deadletters

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/database"
)

const (
	// openTimeout bounds one attempt to open the store, keepTimeout one transaction of a host.
	openTimeout = 30 * time.Second
	keepTimeout = 10 * time.Second
	// Abandoned is how long after its claim a replay that didn't end counts as cut off.
	Abandoned = time.Minute
)

// ErrClosed is what a store returns after its Close.
var ErrClosed = errors.New("the store of dead letters is closed")

// Store keeps dead letters for a host. It is opened when it is first used, and again until that works.
type Store struct {
	place, host string
	dialect     *dialect
	connect     func(purpose) (*sql.DB, error)
	// watch returns a check of the database's place, once it is open.
	watch func() (check func() error, err error)

	mu     sync.Mutex
	closed bool
	opened *opened
}

// purpose is what a database is opened for.
type purpose int

const (
	looking   purpose = iota // a server that can only be read will do
	operating                // rows change
	keeping                  // rows are added, and a missing file is made
)

// opened is a database that is open.
type opened struct {
	*sql.DB
	// check returns why what was written last is lost, or nil.
	check func() error
}

var _ handlers.DeadLetters = (*Store)(nil)

// NewSQLite returns a store in the file at path, which is the dead letters' alone. A host makes it if it is missing.
func NewSQLite(path, host string) *Store {
	var last *database.Watch // of the file that the host opened last
	return &Store{place: path, host: host, dialect: &sqliteDialect, connect: func(p purpose) (*sql.DB, error) {
		if p == keeping && last != nil {
			// Nothing is made in a folder whose disk isn't mounted any more.
			if err := last.CheckFile(); errors.Is(err, database.ErrUnmounted) {
				return nil, err
			}
		}
		return database.File{Path: path, Create: p == keeping, Durable: true}.Open()
	}, watch: func() (func() error, error) {
		w, err := database.File{Path: path}.Watch()
		if err != nil {
			return nil, err
		}
		last = w
		return w.Check, nil
	}}
}

// NewPostgres returns a store in the database at url, which hosts may share.
func NewPostgres(url, host string) *Store {
	config, place, err := database.ParsePostgres(url, "pentrough poison")
	if err != nil {
		place = "the database"
	}
	return &Store{place: place, host: host, dialect: &postgresDialect, connect: func(p purpose) (*sql.DB, error) {
		if err != nil {
			return nil, err
		}
		config := config.Copy()
		if p == looking {
			config.RuntimeParams["default_transaction_read_only"] = "on"
		} else {
			database.Writable(config)
		}
		db := stdlib.OpenDB(*config)
		db.SetMaxOpenConns(2)
		db.SetConnMaxIdleTime(time.Minute)
		return db, nil
	}, watch: func() (func() error, error) {
		return func() error { return nil }, nil // a server that can only be read says so
	}}
}

// explain says of an error where it happened.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", s.place, database.Explain(err))
}

// open returns the database with the schema as it has to be.
func (s *Store) open(ctx context.Context) (*opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.opened != nil:
		return s.opened, nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	db, err := s.connect(keeping)
	if err != nil {
		return nil, err
	}
	if err := s.dialect.Migrate(ctx, db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	check, err := s.watch()
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.opened = &opened{db, check}
	return s.opened, nil
}

// reopen has the next use open the database anew, after an error of db.
func (s *Store) reopen(db *opened) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != db {
		return nil
	}
	s.opened = nil
	return db.Close()
}

// Keep implements handlers.DeadLetters. Letters that went to a file that was removed or replaced are
// kept again, in the one that is in its place: their senders don't get an ack for the first time.
func (s *Store) Keep(ctx context.Context, letters []handlers.DeadLetter, limits handlers.DeadLetterLimits) (handlers.DeadLettersRemoved, error) {
	var removed handlers.DeadLettersRemoved
	db, err := s.open(ctx)
	if err != nil {
		return removed, s.explain(err)
	}
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	err = s.dialect.Transact(ctx, db, func(tx *sql.Tx) error {
		if err := s.insert(ctx, tx, letters, limits.Keeper); err != nil {
			return err
		}
		removed, err = s.prune(ctx, tx, limits)
		return err
	})
	if err == nil {
		err = db.check()
	}
	if err != nil {
		return handlers.DeadLettersRemoved{}, s.explain(errors.Join(err, s.reopen(db)))
	}
	return removed, nil
}

const insert = `INSERT INTO {table} (fingerprint, keeper, host, kept, poisoned, pipeline, handler, kind, cause, attempts, message_id, source,
		exchange, routing_key, details, body, state, changed, operator, claim)
	VALUES (?, ?, ?, {now}, coalesce(?, {now}), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, {now}, '', '') ON CONFLICT (fingerprint) DO NOTHING`

func (s *Store) insert(ctx context.Context, tx *sql.Tx, letters []handlers.DeadLetter, keeper string) error {
	if len(letters) == 0 {
		return nil
	}
	put, err := tx.PrepareContext(ctx, s.dialect.sql(insert))
	if err != nil {
		return fmt.Errorf("preparing to write: %w", err)
	}
	defer func() { _ = put.Close() }() // it ends with the transaction
	for i := range letters {
		l := &letters[i]
		details, err := marshal(l)
		if err != nil {
			return fmt.Errorf("writing the details of message %q: %w", l.MessageID, err)
		}
		var poisoned sql.NullInt64
		if !l.Time.IsZero() {
			poisoned = sql.NullInt64{Int64: l.Time.UnixMilli(), Valid: true}
		}
		body := l.Body
		if body == nil {
			body = []byte{}
		}
		if _, err := put.ExecContext(ctx, fingerprint(l), keeper, s.host, poisoned, plain(l.Pipeline), plain(l.Handler), plain(l.Kind),
			plain(l.Cause), l.Attempts, plain(l.MessageID), plain(string(l.From)), plain(l.Exchange), plain(l.RoutingKey), details, body); err != nil {
			return fmt.Errorf("writing message %q: %w", l.MessageID, err)
		}
	}
	return nil
}

// idle are rows that no operator replays at this moment.
const idle = `(state <> 2 OR changed < {now} - ?)`

// prune removes what is beyond the limits: what is too old, then settled rows, then others, the oldest first.
func (s *Store) prune(ctx context.Context, tx *sql.Tx, limits handlers.DeadLetterLimits) (removed handlers.DeadLettersRemoved, err error) {
	abandoned := Abandoned.Milliseconds()
	remove := func(condition string, args ...any) error {
		rows, err := tx.QueryContext(ctx, s.dialect.sql(`DELETE FROM {table} WHERE `+condition+` RETURNING state`), args...)
		if err != nil {
			return fmt.Errorf("removing rows: %w", err)
		}
		defer func() { _ = rows.Close() }() // rows.Err says it
		for rows.Next() {
			var state State
			if err := rows.Scan(&state); err != nil {
				return fmt.Errorf("removing rows: %w", err)
			}
			if state == Replayed || state == Dropped {
				removed.Settled++
			} else {
				removed.Open++
			}
		}
		return rows.Err()
	}
	if err := remove(`keeper = ? AND kept < {now} - ? AND `+idle, limits.Keeper, limits.Age.Milliseconds(), abandoned); err != nil {
		return removed, err
	}
	for _, states := range []string{"state IN (3, 4)", "state IN (1, 2)"} {
		var has int
		if err := tx.QueryRowContext(ctx, s.dialect.sql(`SELECT count(*) FROM {table} WHERE keeper = ?`), limits.Keeper).Scan(&has); err != nil {
			return removed, fmt.Errorf("counting rows: %w", err)
		}
		if has <= limits.Rows {
			return removed, nil
		}
		if err := remove(`number IN (SELECT number FROM {table} WHERE keeper = ? AND `+states+` AND `+idle+` ORDER BY number LIMIT ?)`,
			limits.Keeper, abandoned, has-limits.Rows); err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// Close ends the use of the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.opened == nil {
		return nil
	}
	err := s.opened.Close()
	s.opened = nil
	return s.explain(err)
}
