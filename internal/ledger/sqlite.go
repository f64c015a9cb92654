package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/pentrough/pentrough/internal/database"
)

//go:embed migrations
var migrations embed.FS

// SQLite is a store in one file, for one host at a time.
type SQLite struct {
	path, host string

	lock                 *fileLock
	db                   *sql.DB
	conn                 *sql.Conn
	put, confirm, remove *sql.Stmt
	change, finish       *sql.Stmt // of rows that are there
	begin, commit        *sql.Stmt
	synchronous          bool   // the connection's setting
	buf                  []byte // of the row that is being written
	// watch remembers the file that was opened last, also when the connection is closed.
	watch   *database.Watch
	tables  tables
	reserve reserve
}

var _ Store = (*SQLite)(nil)

// NewSQLite returns a store in the file at path, which is made if it is missing, for the host of that name.
func NewSQLite(path, host string) *SQLite {
	return &SQLite{path: path, host: host, reserve: reserve{store: path}}
}

// Open implements Store. It keeps the lock when it opens the file anew, so that no other host gets it
// in between. While another file is in the place of the open one, the open one stays open, so that its
// inode number isn't given to another file.
func (s *SQLite) Open(ctx context.Context) (_ []Row, err error) {
	defer func() {
		if full(err) {
			s.reserve.release()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", s.path, database.Explain(err))
		}
	}()
	if s.watch != nil {
		switch err := s.watch.CheckFile(); {
		case errors.Is(err, database.ErrReplaced):
			return nil, fmt.Errorf("%w: move it away, and this host writes its ledger anew from memory; a restart would use that file, and forget what isn't in it", err)
		case errors.Is(err, database.ErrUnmounted):
			return nil, fmt.Errorf("%w; a restart would use the disk that is there, and forget what isn't on it", err)
		case err != nil && !errors.Is(err, database.ErrRemoved):
			return nil, err
		}
	}
	if err := s.disconnect(); err != nil {
		return nil, err
	}
	if err := s.keepOthersOut(); err != nil {
		return nil, err
	}
	// A commit survives the process without reaching the disk (synchronous=NORMAL); Apply asks for more where it is needed.
	file := database.File{Path: s.path, Create: true}
	if s.db, err = file.Open(); err != nil {
		return nil, err
	}
	watch, err := file.Watch()
	if err != nil {
		return nil, err
	}
	if s.watch != nil {
		s.watch = watch // a file that was made anew is this host's, also if what follows fails
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.disconnect())
		}
	}()
	if err := sqliteDialect.Migrate(ctx, s.db); err != nil {
		return nil, err
	}
	made, err := sqliteDialect.Made(ctx, s.db)
	if err != nil {
		return nil, err
	}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return nil, err
	}
	s.synchronous = false
	if s.put, err = s.conn.PrepareContext(ctx, `INSERT INTO ledger (number, pipeline, id, device, digest, state, attempts, outputs, message, origin, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (number) DO UPDATE SET state = excluded.state, attempts = excluded.attempts, outputs = excluded.outputs, changed = excluded.changed,
		message = CASE excluded.state WHEN 3 THEN NULL ELSE coalesce(excluded.message, message) END,
		origin = CASE excluded.state WHEN 3 THEN NULL ELSE coalesce(excluded.origin, origin) END`); err != nil {
		return nil, err
	}
	if s.change, err = s.conn.PrepareContext(ctx, `UPDATE ledger SET state = ?, attempts = ?, changed = ? WHERE number = ?`); err != nil {
		return nil, err
	}
	if s.finish, err = s.conn.PrepareContext(ctx, `UPDATE ledger SET state = ?, attempts = ?, changed = ?, outputs = ? WHERE number = ?`); err != nil {
		return nil, err
	}
	if s.confirm, err = s.conn.PrepareContext(ctx, `UPDATE ledger SET state = 3, message = NULL, origin = NULL, changed = ? WHERE number IN (SELECT value FROM json_each(?))`); err != nil {
		return nil, err
	}
	if s.remove, err = s.conn.PrepareContext(ctx, `DELETE FROM ledger WHERE number IN (SELECT value FROM json_each(?))`); err != nil {
		return nil, err
	}
	// Statements of a connection serve its transactions only if these are begun by hand.
	if s.begin, err = s.conn.PrepareContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return nil, err
	}
	if s.commit, err = s.conn.PrepareContext(ctx, `COMMIT`); err != nil {
		return nil, err
	}
	// SQLite opens a file that can't be written to, or whose disk is full, and reports it only with the
	// first change. This is one: it writes the number that is there.
	if _, err := s.conn.ExecContext(ctx, `PRAGMA user_version = 0`); err != nil {
		return nil, err
	}
	rows, err := s.rows(ctx)
	if err == nil {
		err = s.tables.check(made, rows)
	}
	if err != nil {
		return nil, err
	}
	withLog, err := file.Watch()
	if err == nil {
		err = watch.CheckFile() // that was the open file, not one that came after it
	}
	if err == nil {
		s.watch = withLog
	}
	return rows, err
}

// keepOthersOut takes the lock if the store doesn't have it, or its file was removed or replaced.
func (s *SQLite) keepOthersOut() error {
	path := lockPath(s.path)
	if s.lock != nil && s.lock.at(path) {
		return nil
	}
	lock, err := lockFile(path, fmt.Sprintf("host %q", s.host))
	switch {
	case errors.Is(err, ErrInUse):
		return fmt.Errorf("%w; give each host a store of its own", err)
	case err != nil:
		return err
	}
	if s.lock != nil {
		err = s.lock.release()
	}
	s.lock = lock
	return err
}

// Check implements Store.
func (s *SQLite) Check(context.Context) error {
	err := s.watch.Check()
	if err == nil && !s.lock.at(lockPath(s.path)) {
		err = fmt.Errorf("its .lock: %w", database.ErrRemoved)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

// Reserve implements Store.
func (s *SQLite) Reserve() error { return s.reserve.keep() }

// rows reads all of them, in the order of their numbers.
func (s *SQLite) rows(ctx context.Context) ([]Row, error) {
	found, err := s.conn.QueryContext(ctx, `SELECT number, pipeline, id, device, digest, state, attempts, outputs, message, origin FROM ledger ORDER BY number`)
	if err != nil {
		return nil, fmt.Errorf("reading the rows: %w", err)
	}
	defer func() { _ = found.Close() }() // found.Err says it
	var rows []Row
	for found.Next() {
		var r Row
		var digest []byte
		var p parts
		if err := found.Scan(&r.Number, &r.Key.Pipeline, &r.Key.ID, &r.Key.Device, &digest, &r.State, &r.Attempts, &p.outputs, &p.message, &p.origin); err != nil {
			return nil, fmt.Errorf("reading a row: %w", err)
		}
		if err := r.decode(digest, p); err != nil {
			return nil, err
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// Apply implements Store.
func (s *SQLite) Apply(ctx context.Context, b Batch, sync bool) error {
	if sync != s.synchronous {
		mode := "NORMAL"
		if sync {
			mode = "FULL"
		}
		if _, err := s.conn.ExecContext(ctx, "PRAGMA synchronous = "+mode); err != nil {
			return err
		}
		s.synchronous = sync
	}
	// Only here another process is waited for. What follows asks ctx between its statements: the driver has a goroutine for each statement that a
	// context may end, which costs more than most of them.
	if _, err := s.begin.ExecContext(ctx); err != nil {
		return err
	}
	unending := context.WithoutCancel(ctx)
	err := s.apply(ctx, unending, b, time.Now().UnixMilli())
	if err == nil {
		_, err = s.commit.ExecContext(unending)
	}
	if err != nil {
		// Without effect where the failure ended the transaction.
		_, _ = s.conn.ExecContext(unending, "ROLLBACK")
		if full(err) {
			s.reserve.release()
		}
	}
	return database.Explain(err)
}

// apply makes the changes of a transaction, in statements of an unending context, as long as ctx lives.
func (s *SQLite) apply(ctx, unending context.Context, b Batch, now int64) error {
	if len(b.Remove) > 0 {
		if _, err := s.remove.ExecContext(unending, numbers(b.Remove)); err != nil {
			return fmt.Errorf("removing rows: %w", err)
		}
	}
	for _, r := range b.Put {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.write(unending, &r, now); err != nil {
			return fmt.Errorf("writing id %q: %w", r.Key.ID, err)
		}
	}
	if len(b.Confirm) > 0 {
		if _, err := s.confirm.ExecContext(unending, now, numbers(b.Confirm)); err != nil {
			return fmt.Errorf("confirming rows: %w", err)
		}
	}
	return nil
}

// write puts a row. Most are there already, and then only what may have changed is written.
func (s *SQLite) write(ctx context.Context, r *Row, now int64) error {
	if r.Known && r.Message == nil && r.State == Writing {
		if there, err := affected(s.change.ExecContext(ctx, r.State, r.Attempts, now, r.Number)); there || err != nil {
			return err
		}
	}
	buf, p, err := r.encoded(s.buf[:0])
	if err != nil {
		return err
	}
	s.buf = buf
	if r.Known && r.Message == nil && r.State == Done {
		if there, err := affected(s.finish.ExecContext(ctx, r.State, r.Attempts, now, p.outputs, r.Number)); there || err != nil {
			return err
		}
	}
	_, err = s.put.ExecContext(ctx, r.Number, r.Key.Pipeline, r.Key.ID, r.Key.Device, r.Digest[:], r.State, r.Attempts, p.outputs, p.message, p.origin, now)
	return err
}

// affected reports whether a statement found its row.
func affected(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// numbers makes a JSON array, as SQLite's json_each takes them.
func numbers(all []int64) []byte {
	array := []byte{'['}
	for i, n := range all {
		if i > 0 {
			array = append(array, ',')
		}
		array = strconv.AppendInt(array, n, 10)
	}
	return append(array, ']')
}

// disconnect closes the file and keeps the lock.
func (s *SQLite) disconnect() error {
	var errs []error
	// As long as a statement is there, SQLite keeps the connection, and with it the log and its index.
	for _, statement := range []*sql.Stmt{s.put, s.change, s.finish, s.confirm, s.remove, s.begin, s.commit} {
		if statement != nil {
			errs = append(errs, statement.Close())
		}
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	s.put, s.change, s.finish, s.confirm, s.remove, s.begin, s.commit = nil, nil, nil, nil, nil, nil, nil
	s.conn, s.db = nil, nil
	return errors.Join(errs...)
}

// Close implements Store.
func (s *SQLite) Close() error {
	err := s.disconnect()
	if s.lock != nil {
		err = errors.Join(err, s.lock.release())
	}
	s.lock = nil
	return err
}
