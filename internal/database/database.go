// Package database is the seam between the host and the databases that it writes rows into: what handlers/sql needs of PostgreSQL and SQLite, and
// in which words each of them says it.
//
// [Open] takes a URL; what it returns connects when it is first used, and again after an outage.
package database

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Statement is one change.
type Statement struct {
	// Text is in the words of the database, see [Dialect]. Texts are few: each is prepared once and kept.
	Text string
	Args []any
}

// DB is a database. One goroutine at a time uses it. Its errors have a [Kind].
type DB interface {
	// Dialect is how its statements are written.
	Dialect() Dialect
	// Apply makes all changes, in order, in one transaction. After an error of kind [Fault] none of them was made; after an [Outage] they may
	// have been.
	Apply(ctx context.Context, all []Statement) error
	// Query calls row for each row that a statement finds, with its scan.
	Query(ctx context.Context, s Statement, row func(scan func(dest ...any) error) error) error
	// Explain has the database plan a statement without making it: it finds unknown tables and columns, arguments that don't fit, and conflicts
	// that no unique index backs.
	Explain(ctx context.Context, s Statement) error
	// Migrate brings a schema up to date, each step once. The table versions tells which were made.
	Migrate(ctx context.Context, versions string, steps []string) error
	// Close ends the use; the next use connects again.
	Close() error
}

// Dialect is how statements are written.
type Dialect struct {
	// Name is that of the database, for people.
	Name string
	// Numbered says that parameters are $1, $2 and so on; else each is a ?.
	Numbered bool
	// Types are those of columns, by what they hold.
	Types Types
	// quote begins and ends a name.
	quote string
	// Time makes an argument of a time.
	Time func(t time.Time) any
}

// Types are a database's names of types.
type Types struct{ Text, Bool, Number, Time string }

// Parameter is the nth parameter of a statement, from 1.
func (d Dialect) Parameter(n int) string {
	if d.Numbered {
		return fmt.Sprintf("$%d", n)
	}
	return "?"
}

// Quote writes the name of a table or a column. A dot separates a schema from its table.
func (d Dialect) Quote(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = d.quote + strings.ReplaceAll(p, d.quote, d.quote+d.quote) + d.quote
	}
	return strings.Join(parts, ".")
}

// Open returns the database at a URL: postgres://USER:PASSWORD@HOST:PORT/NAME, or sqlite:PATH. It connects to nothing yet. name is what the database is
// told of who uses it.
func Open(url, name string) (DB, error) {
	scheme, rest, _ := strings.Cut(url, ":")
	switch scheme {
	case "postgres", "postgresql":
		return openPostgres(url, name)
	case "sqlite":
		return openSQLite(rest)
	}
	return nil, errors.New("is of no database that is known; postgres://HOST/NAME and sqlite:PATH are")
}
