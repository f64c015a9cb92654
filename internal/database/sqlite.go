package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
)

// sqliteTime is the format of a time. It is Django's, in which texts sort in the order of their
// times.
const sqliteTime = "2006-01-02 15:04:05.000000"

var sqliteDialect = Dialect{
	Name: "SQLite", quote: `"`,
	goose: goose.DialectSQLite3, migrations: "sqlite", exists: `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?`,
	Types: Types{Text: "text", Long: "text", Bool: "bool", Number: "integer", Time: "datetime"},
	Time:  func(t time.Time) any { return t.UTC().Format(sqliteTime) },
}

// SQLite returns the dialect of SQLite.
func SQLite() Dialect { return sqliteDialect }

// sqliteFile is a database in one file, with one connection.
type sqliteFile struct {
	path string
	mode fs.FileMode

	// watch identifies the file that was opened last. checked is when it was compared with its
	// path.
	watch   *Watch
	checked time.Time

	db       *sql.DB
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
	filled   filled
}

func openSQLite(path string, mode fs.FileMode) (DB, error) {
	if path == "" {
		return nil, errors.New("sqlite: needs a path after it")
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return &sqliteFile{path: absolute, mode: mode}, nil
}

func (f *sqliteFile) Dialect() Dialect { return sqliteDialect }

func (f *sqliteFile) connect(ctx context.Context) error {
	if f.conn != nil {
		return nil
	}
	// A removed file isn't made again: an empty one would lack its tables and rows.
	file := File{Path: f.path, Create: f.watch == nil, Shared: true, Mode: f.mode}
	db, err := file.Open()
	if f.watch != nil && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: put it back; a restart would make an empty one", ErrRemoved)
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", f.path, err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("opening %s: %w", f.path, err), db.Close())
	}
	f.filled = filled{}
	f.db, f.conn, f.prepared, f.checked = db, conn, map[string]*sql.Stmt{}, time.Now()
	if f.watch, err = file.Watch(); err != nil {
		return errors.Join(fmt.Errorf("opening %s: %w", f.path, err), f.Close())
	}
	return nil
}

// CheckPlace implements DB. After an error the next use opens the file again.
func (f *sqliteFile) CheckPlace(ctx context.Context) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	f.checked = time.Now()
	if err := f.watch.Check(); err != nil {
		return f.closeAfterOutage(fmt.Errorf("%s: %w", f.path, err))
	}
	return nil
}

// prepare returns the prepared statement of a text. It works in all transactions of the
// connection, since BEGIN and COMMIT are statements, too.
func (f *sqliteFile) prepare(ctx context.Context, text string) (*sql.Stmt, error) {
	if s, ok := f.prepared[text]; ok {
		return s, nil
	}
	s, err := f.conn.PrepareContext(ctx, text)
	if err == nil {
		f.prepared[text] = s
	}
	return s, err
}

func (f *sqliteFile) execute(ctx context.Context, s Statement) error {
	prepared, err := f.prepare(ctx, s.Text)
	if err != nil {
		return err
	}
	_, err = prepared.ExecContext(ctx, s.Args...)
	return err
}

// Apply implements DB. Only BEGIN may wait for another process, so only BEGIN gets ctx. The driver
// starts a goroutine for each statement whose context can end, which costs more than most
// statements. So Apply checks ctx between the statements.
func (f *sqliteFile) Apply(ctx context.Context, all []Statement) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	if err := f.execute(ctx, Statement{Text: "BEGIN IMMEDIATE"}); err != nil {
		return f.closeAfterOutage(err)
	}
	unending := context.WithoutCancel(ctx)
	all, err := f.filled.convertAll(all, f.columns(unending))
	for _, s := range all {
		if err != nil {
			break
		}
		if err = context.Cause(ctx); err != nil {
			break
		}
		if err = f.execute(unending, s); err != nil {
			break
		}
	}
	if err == nil {
		err = f.execute(unending, Statement{Text: "COMMIT"})
	}
	if err == nil {
		if time.Since(f.checked) < CheckInterval {
			return nil
		}
		return f.CheckPlace(unending)
	}
	// ROLLBACK has no effect if the failure has ended the transaction.
	_, _ = f.conn.ExecContext(unending, "ROLLBACK")
	return f.closeAfterOutage(err)
}

// closeAfterOutage gives an error its kind. After an outage it closes the file, so that the next
// use opens it again: another file may be at the path then.
func (f *sqliteFile) closeAfterOutage(err error) error {
	err = judgeSQLite(err)
	if KindOf(err) == Outage {
		_ = f.Close() // err is the cause
	}
	return err
}

func (f *sqliteFile) Query(ctx context.Context, s Statement, row func(scan func(dest ...any) error) error) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	found, err := f.conn.QueryContext(ctx, s.Text, s.Args...)
	if err != nil {
		return f.closeAfterOutage(err)
	}
	for found.Next() {
		if err = row(found.Scan); err != nil {
			break
		}
	}
	if err = errors.Join(err, found.Close(), found.Err()); err != nil {
		return f.closeAfterOutage(err)
	}
	return nil
}

func (f *sqliteFile) columns(ctx context.Context) func(Statement) ([]column, error) {
	return func(s Statement) ([]column, error) { return sqlColumns(ctx, f.conn, sqliteDialect, s, sqliteColumn) }
}

// Explain implements DB. SQLite plans a statement when it prepares it.
func (f *sqliteFile) Explain(ctx context.Context, s Statement) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	prepared, err := f.conn.PrepareContext(ctx, s.Text)
	if err == nil {
		_, err = f.filled.convertAll([]Statement{s}, f.columns(ctx))
		err = errors.Join(err, prepared.Close())
	}
	if err != nil {
		return f.closeAfterOutage(err)
	}
	return nil
}

// CheckKey implements DB. Explain reports a missing index.
func (f *sqliteFile) CheckKey(context.Context, string, string) error { return nil }

func (f *sqliteFile) Migrate(ctx context.Context, versions string, steps []string) error {
	// goose needs the only connection.
	if err := f.Close(); err != nil {
		return err
	}
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	if err := f.conn.Close(); err != nil {
		return err
	}
	err := migrateSteps(ctx, goose.DialectSQLite3, f.db, versions, steps)
	err = errors.Join(err, f.db.Close())
	f.conn, f.db, f.prepared, f.filled = nil, nil, nil, nil
	return judgeSQLite(err)
}

func (f *sqliteFile) Close() error {
	if f.conn == nil {
		return nil
	}
	var errs []error
	// SQLite keeps the connection, the log and its index open until all statements are closed.
	for _, s := range f.prepared {
		errs = append(errs, s.Close())
	}
	errs = append(errs, f.conn.Close(), f.db.Close())
	f.conn, f.db, f.prepared, f.filled = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Absent returns the path of a SQLite file that doesn't exist yet, and "" for any other database.
func Absent(db DB) string {
	if f, ok := db.(*sqliteFile); ok {
		if isMissing(f.path) {
			return f.path
		}
	}
	return ""
}
