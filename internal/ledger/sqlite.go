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
	change, finish       *sql.Stmt // for rows that the store has
	begin, commit        *sql.Stmt
	synchronous          bool   // the connection's setting
	buf                  []byte // the JSON of the row that is being written
	// watch identifies the file that was opened last, even after the connection was closed.
	watch   *database.Watch
	tables  tables
	reserve diskReserve
}

var _ Store = (*SQLite)(nil)

// NewSQLite returns a store for the host of that name, in the file at path. Open makes a missing
// file.
func NewSQLite(path, host string) *SQLite {
	return &SQLite{path: path, host: host, reserve: diskReserve{store: path}}
}

// Open implements Store. It keeps the lock when it opens the file again, so that no other host can
// get the lock in between. If another file has taken the place of the store's file, Open keeps the
// store's file open. As long as it is open, no other file can get its inode number.
func (s *SQLite) Open(ctx context.Context) (_ []Row, err error) {
	defer func() {
		if isDiskFull(err) {
			s.reserve.removeFile()
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", s.path, database.Explain(err))
		}
	}()
	if s.watch != nil {
		switch err := s.watch.CheckFile(); {
		case errors.Is(err, database.ErrReplaced):
			return nil, fmt.Errorf("%w: move it away, so that this host can write its ledger again from memory; a restarted host would use the other file, and forget all rows that the other file lacks", err)
		case errors.Is(err, database.ErrUnmounted):
			return nil, fmt.Errorf("%w; a restarted host would use the disk that is there now, and forget all rows that this disk lacks", err)
		case err != nil && !errors.Is(err, database.ErrRemoved):
			return nil, err
		}
	}
	if err := s.disconnect(); err != nil {
		return nil, err
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	// At first the connection has synchronous=NORMAL: a commit survives the end of the process,
	// but perhaps not a crash of the machine. Apply changes this for commits that must reach the
	// disk.
	file := database.File{Path: s.path, Create: true}
	if s.db, err = file.Open(); err != nil {
		return nil, err
	}
	watch, err := file.Watch()
	if err != nil {
		return nil, err
	}
	if s.watch != nil {
		// If Open has made the file again, watch the new file from now on, even if a later step
		// fails: the new file belongs to this host.
		s.watch = watch
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
	// A sql.Tx can't use the prepared statements of its connection. So BEGIN and COMMIT are
	// statements, too.
	if s.begin, err = s.conn.PrepareContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return nil, err
	}
	if s.commit, err = s.conn.PrepareContext(ctx, `COMMIT`); err != nil {
		return nil, err
	}
	// If a file can't be written or its disk is full, SQLite reports that only at the first
	// change. This is such a change: it writes the number that the file has already.
	if _, err := s.conn.ExecContext(ctx, `PRAGMA user_version = 0`); err != nil {
		return nil, err
	}
	rows, err := s.readRows(ctx)
	if err == nil {
		err = s.tables.adopt(made, rows)
	}
	if err != nil {
		return nil, err
	}
	withLog, err := file.Watch()
	if err == nil {
		// Another file may have replaced the open one before withLog was made. Then withLog would
		// watch the wrong file, and so this check fails.
		err = watch.CheckFile()
	}
	if err == nil {
		s.watch = withLog
	}
	return rows, err
}

// takeLock takes the lock if the store doesn't have it, or if the lock's file was removed or
// replaced.
func (s *SQLite) takeLock() error {
	path := lockPath(s.path)
	if s.lock != nil && s.lock.isFileAt(path) {
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
		err = s.lock.unlock()
	}
	s.lock = lock
	return err
}

// Check implements Store.
func (s *SQLite) Check(context.Context) error {
	err := s.watch.Check()
	if err == nil && !s.lock.isFileAt(lockPath(s.path)) {
		err = fmt.Errorf("its .lock: %w", database.ErrRemoved)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return nil
}

// EnsureReserve implements Store.
func (s *SQLite) EnsureReserve() error { return s.reserve.ensureFile() }

// readRows returns all rows, in the order of their numbers.
func (s *SQLite) readRows(ctx context.Context) ([]Row, error) {
	found, err := s.conn.QueryContext(ctx, `SELECT number, pipeline, id, device, digest, state, attempts, outputs, message, origin FROM ledger ORDER BY number`)
	if err != nil {
		return nil, fmt.Errorf("reading the rows: %w", err)
	}
	defer func() { _ = found.Close() }() // found.Err returns the same error
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
	// Only BEGIN may wait for another process, so only BEGIN gets ctx. The driver starts a
	// goroutine for each statement whose context can end. This goroutine costs more than most
	// statements. So the others run without ctx, and applyChanges checks ctx between them.
	if _, err := s.begin.ExecContext(ctx); err != nil {
		return err
	}
	unending := context.WithoutCancel(ctx)
	err := s.applyChanges(ctx, unending, b, time.Now().UnixMilli())
	if err == nil {
		_, err = s.commit.ExecContext(unending)
	}
	if err != nil {
		// ROLLBACK has no effect if the failure has ended the transaction.
		_, _ = s.conn.ExecContext(unending, "ROLLBACK")
		if isDiskFull(err) {
			s.reserve.removeFile()
		}
	}
	return database.Explain(err)
}

// applyChanges writes the changes of a transaction as long as ctx lives. Its statements run with
// unending.
func (s *SQLite) applyChanges(ctx, unending context.Context, b Batch, now int64) error {
	if len(b.Remove) > 0 {
		if _, err := s.remove.ExecContext(unending, jsonArray(b.Remove)); err != nil {
			return fmt.Errorf("removing rows: %w", err)
		}
	}
	for _, r := range b.Put {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.writeRow(unending, &r, now); err != nil {
			return fmt.Errorf("writing id %q: %w", r.Key.ID, err)
		}
	}
	if len(b.Confirm) > 0 {
		if _, err := s.confirm.ExecContext(unending, now, jsonArray(b.Confirm)); err != nil {
			return fmt.Errorf("confirming rows: %w", err)
		}
	}
	return nil
}

// writeRow writes a row. Usually the store has the row already. Then writeRow writes only the
// columns that may have changed.
func (s *SQLite) writeRow(ctx context.Context, r *Row, now int64) error {
	if r.Known && r.Message == nil && r.State == Writing {
		if there, err := foundRow(s.change.ExecContext(ctx, r.State, r.Attempts, now, r.Number)); there || err != nil {
			return err
		}
	}
	buf, p, err := r.appendParts(s.buf[:0])
	if err != nil {
		return err
	}
	s.buf = buf
	if r.Known && r.Message == nil && r.State == Done {
		if there, err := foundRow(s.finish.ExecContext(ctx, r.State, r.Attempts, now, p.outputs, r.Number)); there || err != nil {
			return err
		}
	}
	_, err = s.put.ExecContext(ctx, r.Number, r.Key.Pipeline, r.Key.ID, r.Key.Device, r.Digest[:], r.State, r.Attempts, p.outputs, p.message, p.origin, now)
	return err
}

// foundRow reports whether a statement changed a row.
func foundRow(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n > 0, err
}

// jsonArray returns the numbers as a JSON array, for SQLite's json_each.
func jsonArray(all []int64) []byte {
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
	// SQLite keeps the connection, the log and its index open until all statements are closed.
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
		err = errors.Join(err, s.lock.unlock())
	}
	s.lock = nil
	return err
}
