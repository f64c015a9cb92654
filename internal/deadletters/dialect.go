package deadletters

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrations embed.FS

// Why a store can't be looked into.
var (
	// ErrNone means that no host keeps dead letters there yet.
	ErrNone = errors.New("no host keeps dead letters there yet")
	// ErrSchema means that another version of the program made it.
	ErrSchema = errors.New("another version of pentrough made it")
	// ErrDamaged means that a file is no SQLite database, or not a whole one.
	ErrDamaged = errors.New("the file is damaged, or no SQLite database")
)

// dialect is how a database is spoken to.
type dialect struct {
	goose goose.Dialect
	// migrations is the folder of its migrations, and versions the table that says which of them were made.
	migrations, versions string
	table                string
	// exists is a query that tells whether a table is there.
	exists string
	// now is the database's time in Unix milliseconds: all hosts and operators have that one.
	now string
	// position is the function that finds a text in another.
	position string
	// numbered says that arguments are $1, $2 and so on.
	numbered bool
	// begin is the first statement of a transaction that has to reach the disk; "" is none.
	begin string
	// explain adds what an error of the database means.
	explain func(error) error
}

// sql is a statement in the database's own words.
func (d *dialect) sql(statement string) string {
	statement = strings.NewReplacer("{table}", d.table, "{now}", d.now, "{position}", d.position).Replace(statement)
	if !d.numbered {
		return statement
	}
	var b strings.Builder
	n := 0
	for before, rest, found := strings.Cut(statement, "?"); ; before, rest, found = strings.Cut(rest, "?") {
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
	}
}

// migrate brings the schema up to date. It refuses one that is ahead of this program.
func (d *dialect) migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, path.Join("migrations", d.migrations))
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(d.goose, db, files, goose.WithTableName(d.versions))
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	has, own, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if has > own {
		return differs(has, own)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bringing the schema up to date: %w", err)
	}
	return nil
}

func differs(has, own int64) error {
	return fmt.Errorf("%w: its schema has version %d, this one's is %d", ErrSchema, has, own)
}

// check holds a schema against the program's own, and changes nothing.
func (d *dialect) check(ctx context.Context, db *sql.DB) error {
	for _, table := range []string{d.versions, d.table} {
		var there bool
		if err := db.QueryRowContext(ctx, d.exists, table).Scan(&there); err != nil {
			return fmt.Errorf("looking for the table %s: %w", table, err)
		}
		if !there {
			return ErrNone
		}
	}
	var has int64
	if err := db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+d.versions+` WHERE is_applied`).Scan(&has); err != nil {
		return fmt.Errorf("reading the schema's version: %w", err)
	}
	if own := d.newest(); has != own {
		return differs(has, own)
	}
	return nil
}

// newest is the version of the last migration.
func (d *dialect) newest() int64 {
	files, err := migrations.ReadDir(path.Join("migrations", d.migrations))
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

// transact makes changes that have reached the disk when it returns without an error; all or none.
func (d *dialect) transact(ctx context.Context, db *sql.DB, change func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if d.begin != "" {
		_, err = tx.ExecContext(ctx, d.begin)
	}
	if err == nil {
		err = change(tx)
	}
	if err != nil {
		// Without effect where the failure ended the transaction.
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}
