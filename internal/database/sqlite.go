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

// sqliteTime is how a time is written: as Django does, so that texts compare as the times do.
const sqliteTime = "2006-01-02 15:04:05.000000"

var sqliteDialect = Dialect{
	Name: "SQLite", quote: `"`,
	goose: goose.DialectSQLite3, migrations: "sqlite", exists: `SELECT count(*) > 0 FROM sqlite_master WHERE type = 'table' AND name = ?`,
	Types: Types{Text: "text", Long: "text", Bool: "bool", Number: "integer", Time: "datetime"},
	Time:  func(t time.Time) any { return t.UTC().Format(sqliteTime) },
}

// SQLite returns the dialect of SQLite.
func SQLite() Dialect { return sqliteDialect }

// sqliteFile is a database in one file, behind one connection.
type sqliteFile struct {
	path string
	mode fs.FileMode

	// watch is the file that was opened last, and checked is when it was compared with its path.
	watch   *Watch
	checked time.Time

	db       *sql.DB
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
	filled   filled
}

func openSQLite(path string, mode fs.FileMode) (DB, error) {
	if path == "" {
		return nil, errors.New("sqlite: has no path behind it")
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
	// A file that was there before isn't made anew: an empty one would have none of its tables and rows.
	file := File{Path: f.path, Create: f.watch == nil, Shared: true, Mode: f.mode}
	db, err := file.Open()
	if f.watch != nil && errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: put it back; a restart makes an empty one", ErrRemoved)
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

// CheckPlace implements DB. After an error the file is opened anew.
func (f *sqliteFile) CheckPlace(ctx context.Context) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	f.checked = time.Now()
	if err := f.watch.Check(); err != nil {
		return f.failed(fmt.Errorf("%s: %w", f.path, err))
	}
	return nil
}

// prepare returns the statement of a text, which serves the transactions of the connection as these are begun by hand.
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

func (f *sqliteFile) exec(ctx context.Context, s Statement) error {
	prepared, err := f.prepare(ctx, s.Text)
	if err != nil {
		return err
	}
	_, err = prepared.ExecContext(ctx, s.Args...)
	return err
}

// Apply implements DB. Only its beginning waits for others, and only that and the gaps between statements ask ctx: the driver has a goroutine for
// each statement that a context may end, which costs more than most of them.
func (f *sqliteFile) Apply(ctx context.Context, all []Statement) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	if err := f.exec(ctx, Statement{Text: "BEGIN IMMEDIATE"}); err != nil {
		return f.failed(err)
	}
	unending := context.WithoutCancel(ctx)
	all, err := f.filled.fit(all, f.columns(unending))
	for _, s := range all {
		if err != nil {
			break
		}
		if err = context.Cause(ctx); err != nil {
			break
		}
		if err = f.exec(unending, s); err != nil {
			break
		}
	}
	if err == nil {
		err = f.exec(unending, Statement{Text: "COMMIT"})
	}
	if err == nil {
		if time.Since(f.checked) < CheckInterval {
			return nil
		}
		return f.CheckPlace(unending)
	}
	_, _ = f.conn.ExecContext(unending, "ROLLBACK") // without effect where the failure ended the transaction
	return f.failed(err)
}

// failed gives an error its kind. After an outage the file is opened anew: it may be another one by then.
func (f *sqliteFile) failed(err error) error {
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
		return f.failed(err)
	}
	for found.Next() {
		if err = row(found.Scan); err != nil {
			break
		}
	}
	if err = errors.Join(err, found.Close(), found.Err()); err != nil {
		return f.failed(err)
	}
	return nil
}

func (f *sqliteFile) columns(ctx context.Context) func(Statement) ([]column, error) {
	return func(s Statement) ([]column, error) { return sqlColumns(ctx, f.conn, sqliteDialect, s, sqliteColumn) }
}

// Explain implements DB: preparing a statement plans it.
func (f *sqliteFile) Explain(ctx context.Context, s Statement) error {
	if err := f.connect(ctx); err != nil {
		return judgeSQLite(err)
	}
	prepared, err := f.conn.PrepareContext(ctx, s.Text)
	if err == nil {
		_, err = f.filled.fit([]Statement{s}, f.columns(ctx))
		err = errors.Join(err, prepared.Close())
	}
	if err != nil {
		return f.failed(err)
	}
	return nil
}

// CheckKey implements DB: Explain finds it.
func (f *sqliteFile) CheckKey(context.Context, string, string) error { return nil }

func (f *sqliteFile) Migrate(ctx context.Context, versions string, steps []string) error {
	// goose takes connections of its own.
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
	// As long as a statement is there, SQLite keeps the connection, and with it the log and its index.
	for _, s := range f.prepared {
		errs = append(errs, s.Close())
	}
	errs = append(errs, f.conn.Close(), f.db.Close())
	f.conn, f.db, f.prepared, f.filled = nil, nil, nil, nil
	return errors.Join(errs...)
}

// Absent returns the path of a SQLite file that isn't there yet, and "" for every other database.
func Absent(db DB) string {
	if f, ok := db.(*sqliteFile); ok {
		if missing(f.path) {
			return f.path
		}
	}
	return ""
}
