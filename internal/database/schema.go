package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// Schema is a set of tables that the host keeps for itself, such as the ledger's. Its migrations
// are the files of migrations/sqlite and migrations/postgres; their numbers are never changed.
type Schema struct {
	Dialect
	// Migrations has the folder migrations.
	Migrations fs.FS
	// Versions is the table that records the applied migrations. In a server's database each
	// schema has its own name for it, since another program may use goose there.
	Versions string
	// Table is a table that every version of the schema has.
	Table string
}

// Migrate applies the missing migrations. It returns [ErrSchema] if the schema is newer than this
// program. Several hosts may call it at the same time.
func (s Schema) Migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(s.Migrations, s.folder())
	if err != nil {
		return err
	}
	return migrate(ctx, s.goose, db, files, goose.WithTableName(s.Versions))
}

// Check returns the version of the schema. Its error is [ErrNone] if the tables are missing, and
// [ErrSchema] if the version isn't this program's. It changes nothing.
func (s Schema) Check(ctx context.Context, db interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}) (version int64, err error) {
	for _, table := range []string{s.Versions, s.Table} {
		var exists bool
		if err := db.QueryRowContext(ctx, s.exists, table).Scan(&exists); err != nil {
			return 0, fmt.Errorf("looking for the table %s: %w", table, err)
		}
		if !exists {
			return 0, ErrNone
		}
	}
	err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+s.Versions+` WHERE is_applied`).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("reading the schema's version: %w", err)
	}
	if own := s.Newest(); version != own {
		return version, otherSchema(version, own)
	}
	return version, nil
}

// Made returns when the tables were made. The time identifies the database, and a copy of it.
func (s Schema) Made(ctx context.Context, db *sql.DB) (made time.Time, err error) {
	// goose writes the version 0 when it makes its table.
	err = db.QueryRowContext(ctx, `SELECT tstamp FROM `+s.Versions+` WHERE version_id = 0`).Scan(&made)
	if err != nil {
		return made, fmt.Errorf("reading when the tables were made: %w", err)
	}
	return made, nil
}

// Newest returns the version of the last migration.
func (s Schema) Newest() int64 {
	files, err := fs.ReadDir(s.Migrations, s.folder())
	if err != nil {
		panic(err) // they are embedded
	}
	var last int64
	for _, f := range files {
		if n, err := goose.NumericComponent(f.Name()); err == nil {
			last = max(last, n)
		}
	}
	return last
}

func (s Schema) folder() string { return path.Join("migrations", s.migrations) }

// Transact makes changes in one transaction. When it returns nil, they are on the disk. If change
// returns an error, none of them has an effect.
func (s Schema) Transact(ctx context.Context, db interface {
	BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error)
}, change func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if s.Durable != "" {
		_, err = tx.ExecContext(ctx, s.Durable)
	}
	if err == nil {
		err = change(tx)
	}
	if err != nil {
		_ = tx.Rollback() // no effect if the failure has ended the transaction
		return err
	}
	return tx.Commit()
}

// Positional translates a statement whose parameters are each written as a ?.
func (d Dialect) Positional(statement string) string {
	parts := strings.Split(statement, "?")
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteString(d.Parameter(i))
		}
		b.WriteString(part)
	}
	return b.String()
}

// Where collects the conditions of a statement. Its zero value is true for all rows.
type Where struct {
	conditions []string
	// Args are the arguments of the condition's parameters.
	Args []any
}

// And adds a condition, with a ? for its argument.
func (w *Where) And(condition string, arg any) {
	w.conditions, w.Args = append(w.conditions, condition), append(w.Args, arg)
}

// AndEqual adds the condition that a column has a value. nil adds nothing.
func (w *Where) AndEqual(column string, value *string) {
	if value != nil {
		w.And(column+" = ?", *value)
	}
}

// AndIn adds the condition that a column has one of the numbers. An empty list adds nothing.
func AndIn[N ~int](w *Where, column string, numbers []N) {
	if len(numbers) == 0 {
		return
	}
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.Itoa(int(n))
	}
	w.conditions = append(w.conditions, column+" IN ("+strings.Join(texts, ", ")+")")
}

// String returns the WHERE clause, with each parameter written as a ? for [Dialect.Positional].
func (w *Where) String() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// Pages returns rows that are read in pages. Only one page is in memory, and no query is open
// while the caller handles a row. next returns the first page or the next one, and whether more
// may follow. An error is the last value.
func Pages[R any](next func(first bool) (page []R, more bool, err error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for first, more := true, true; more; first = false {
			var page []R
			var err error
			if page, more, err = next(first); err != nil {
				var none R
				yield(none, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}

// migrate applies the migrations that a provider finds. If another host does the same at the same
// time, the one that loses tries again.
func migrate(ctx context.Context, in goose.Dialect, db *sql.DB, files fs.FS, options ...goose.ProviderOption) error {
	// An unreachable database isn't tried again.
	if err := db.PingContext(ctx); err != nil {
		return err
	}
	return retryLost(ctx, func() error {
		p, err := goose.NewProvider(in, db, files, append(options, goose.WithDisableGlobalRegistry(true))...)
		if err != nil {
			return fmt.Errorf("reading the migrations: %w", err)
		}
		has, own, err := p.GetVersions(ctx)
		if err != nil {
			return fmt.Errorf("reading the schema's version: %w", err)
		}
		if has > own {
			return otherSchema(has, own)
		}
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrating the schema: %w", err)
		}
		return nil
	}, func(err error) bool { return !errors.Is(err, ErrSchema) })
}

// migrateSteps applies the steps that a schema lacks, in order.
func migrateSteps(ctx context.Context, in goose.Dialect, db *sql.DB, versions string, steps []string) error {
	var all []*goose.Migration
	for i, text := range steps {
		all = append(all, goose.NewGoMigration(int64(i+1), &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, text)
			return err
		}}, nil))
	}
	err := migrate(ctx, in, db, nil, goose.WithTableName(versions), goose.WithGoMigrations(all...))
	if errors.Is(err, ErrSchema) {
		return fmt.Errorf("in the table %s: %w", versions, err)
	}
	return err
}
