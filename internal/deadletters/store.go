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
	// openTimeout bounds one attempt to open the store. keepTimeout bounds one transaction of a
	// host.
	openTimeout = 30 * time.Second
	keepTimeout = 10 * time.Second
	// Abandoned is the time after which an operator may claim a row whose replay hasn't ended.
	Abandoned = time.Minute
)

// ErrClosed is the error of a store after Close.
var ErrClosed = errors.New("the store of dead letters is closed")

// Store stores dead letters for a host. The first use opens the database, and so does the next use
// after an error.
type Store struct {
	place, host string
	dialect     *dialect
	connect     func(purpose) (*sql.DB, error)
	// watch returns a function that checks whether the open file is still the one at its path.
	watch func() (check func() error, err error)

	mu     sync.Mutex
	closed bool
	opened *opened
}

// purpose says why a database is opened.
type purpose int

const (
	looking   purpose = iota // for reading; a read-only server is enough
	operating                // for changing rows
	keeping                  // for adding rows; a missing file is made
)

// opened is an open database.
type opened struct {
	*sql.DB
	// check returns why the last transaction is lost, or nil.
	check func() error
}

var _ handlers.DeadLetters = (*Store)(nil)

// NewSQLite returns a store in the file at path. The file is only for dead letters. A host makes a
// missing file.
func NewSQLite(path, host string) *Store {
	var last *database.Watch // identifies the file that the host opened last
	return &Store{place: path, host: host, dialect: &sqliteDialect, connect: func(p purpose) (*sql.DB, error) {
		if p == keeping && last != nil {
			// If the disk of the folder is no longer mounted, no file is made there.
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

// NewPostgres returns a store in the database at url. Several hosts may share it.
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
		return func() error { return nil }, nil // a read-only server refuses the transaction
	}}
}

// explain adds the place of the store to an error, and what the error means.
func (s *Store) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", s.place, database.Explain(err))
}

// openDatabase opens the database if it isn't open, and migrates its schema.
func (s *Store) openDatabase(ctx context.Context) (*opened, error) {
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

// closeAfterError closes the database db after an error, so that the next use opens it again.
func (s *Store) closeAfterError(db *opened) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != db {
		return nil
	}
	s.opened = nil
	return db.Close()
}

// Keep implements handlers.DeadLetters. If the file was removed or replaced, Keep returns an error
// after the transaction. The letters aren't acked then, and the next call stores them in the file
// that is at the path.
func (s *Store) Keep(ctx context.Context, letters []handlers.DeadLetter, limits handlers.DeadLetterLimits) (handlers.DeadLettersRemoved, error) {
	var removed handlers.DeadLettersRemoved
	db, err := s.openDatabase(ctx)
	if err != nil {
		return removed, s.explain(err)
	}
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	err = s.dialect.Transact(ctx, db, func(tx *sql.Tx) error {
		if err := s.insertLetters(ctx, tx, letters, limits.Keeper); err != nil {
			return err
		}
		removed, err = s.removeExcess(ctx, tx, limits)
		return err
	})
	if err == nil {
		err = db.check()
	}
	if err != nil {
		return handlers.DeadLettersRemoved{}, s.explain(errors.Join(err, s.closeAfterError(db)))
	}
	return removed, nil
}

const insert = `INSERT INTO {table} (fingerprint, keeper, host, kept, poisoned, pipeline, handler, kind, cause, attempts, message_id, source,
		exchange, routing_key, details, body, state, changed, operator, claim)
	VALUES (?, ?, ?, {now}, coalesce(?, {now}), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, {now}, '', '') ON CONFLICT (fingerprint) DO NOTHING`

func (s *Store) insertLetters(ctx context.Context, tx *sql.Tx, letters []handlers.DeadLetter, keeper string) error {
	if len(letters) == 0 {
		return nil
	}
	put, err := tx.PrepareContext(ctx, s.dialect.statement(insert))
	if err != nil {
		return fmt.Errorf("preparing the statement: %w", err)
	}
	defer func() { _ = put.Close() }() // the end of the transaction closes it, too
	for i := range letters {
		l := &letters[i]
		details, err := marshalDetails(l)
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
		if _, err := put.ExecContext(ctx, fingerprint(l), keeper, s.host, poisoned, cleanText(l.Pipeline), cleanText(l.Handler), cleanText(l.Kind),
			cleanText(l.Cause), l.Attempts, cleanText(l.MessageID), cleanText(string(l.From)), cleanText(l.Exchange), cleanText(l.RoutingKey), details, body); err != nil {
			return fmt.Errorf("writing message %q: %w", l.MessageID, err)
		}
	}
	return nil
}

// idle is the condition for rows that no operator is replaying.
const idle = `(state <> 2 OR changed < {now} - ?)`

// removeExcess removes rows beyond the limits: first the rows that are too old, then settled rows,
// then other rows, the oldest first.
func (s *Store) removeExcess(ctx context.Context, tx *sql.Tx, limits handlers.DeadLetterLimits) (removed handlers.DeadLettersRemoved, err error) {
	abandoned := Abandoned.Milliseconds()
	remove := func(condition string, args ...any) error {
		rows, err := tx.QueryContext(ctx, s.dialect.statement(`DELETE FROM {table} WHERE `+condition+` RETURNING state`), args...)
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
		if err := tx.QueryRowContext(ctx, s.dialect.statement(`SELECT count(*) FROM {table} WHERE keeper = ?`), limits.Keeper).Scan(&has); err != nil {
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
