// Package database is the one place where databases are opened, migrated and their errors
// explained: SQLite, PostgreSQL and MySQL.
//
// A handler that writes into a user's database calls [Open] with a URL; what it returns connects
// when it is first used, and again after an outage. A part of the host that keeps tables of its
// own, such as the ledger, opens a [File] or takes the settings of [ParsePostgres], and brings its
// tables up to date with a [Schema]. [Explain] says what an error means.
package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// Statement is one change.
type Statement struct {
	// Text is in the words of the database, see [Dialect]. Texts are few: each is prepared once and kept.
	Text string
	Args []any
	// Fit has arguments converted for the columns that they fill, see [JSON].
	Fit bool
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
	// CheckKey returns a [Fault] if no unique index is on a column alone, so that a row could be there twice, as far as Explain doesn't find that.
	CheckKey(ctx context.Context, table, column string) error
	// Migrate brings a schema up to date, each step once. The table versions tells which were made.
	Migrate(ctx context.Context, versions string, steps []string) error
	// CheckPlace returns why what is written now would be lost or refused, or nil: a file was removed
	// or replaced, or a server is away or can only be read.
	CheckPlace(ctx context.Context) error
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
	// OnDuplicateKey says that INSERT takes ON DUPLICATE KEY UPDATE, which changes columns from left to right and has no WHERE, and not ON CONFLICT.
	OnDuplicateKey bool
	// quote begins and ends a name.
	quote string
	goose goose.Dialect
	// migrations is the folder of a [Schema] for this database, and exists a query that tells
	// whether a table exists. A MySQL has neither.
	migrations, exists string
	// Durable is a statement that has a transaction reach the disk; "" is none.
	Durable string
	// Time makes an argument of a time.
	Time func(t time.Time) any
}

// Types are a database's names of types.
type Types struct {
	// Text may be a key, Long is what may be long.
	Text, Long, Bool, Number, Time string
}

// Index is one of a table.
type Index struct {
	Name    string
	Columns []string
	// Where is which rows are in it; databases that have all rows in every index don't look at it.
	Where string
}

// Create makes a table with indexes. Where that isn't a part of a transaction, it does nothing if the table is there.
func (d Dialect) Create(table string, columns []string, indexes ...Index) string {
	all := columns
	var after strings.Builder
	for _, i := range indexes {
		if d.OnDuplicateKey {
			all = append(all, "INDEX "+d.Quote(i.Name)+" ("+strings.Join(i.Columns, ", ")+")")
			continue
		}
		after.WriteString(";CREATE INDEX " + d.Quote(i.Name) + " ON " + d.Quote(table) + " (" + strings.Join(i.Columns, ", ") + ")")
		if i.Where != "" {
			after.WriteString(" WHERE " + i.Where)
		}
	}
	create := "CREATE TABLE "
	if d.OnDuplicateKey {
		create += "IF NOT EXISTS "
	}
	return create + d.Quote(table) + " (" + strings.Join(all, ", ") + ")" + after.String()
}

// Quoted are names in quotes, as a list.
func (d Dialect) Quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = d.Quote(name)
	}
	return strings.Join(all, ", ")
}

// InsertNew makes a row of a table, with a parameter for each column, and does nothing if the key is there.
func (d Dialect) InsertNew(table string, columns, key []string) string {
	places := make([]string, len(columns))
	for i := range columns {
		places[i] = d.Parameter(i + 1)
	}
	text := "INSERT INTO " + d.Quote(table) + " (" + d.Quoted(columns) + ") VALUES (" + strings.Join(places, ", ") + ")"
	if d.OnDuplicateKey {
		return text + " ON DUPLICATE KEY UPDATE " + d.Quote(key[0]) + " = " + d.Quote(key[0])
	}
	return text + " ON CONFLICT (" + d.Quoted(key) + ") DO NOTHING"
}

// CountOld counts the rows whose time, a column, is before a parameter, but not more than so many.
func (d Dialect) CountOld(table, column string, most int) string {
	return fmt.Sprintf("SELECT count(*) FROM (SELECT 1 AS one FROM %s WHERE %s < %s LIMIT %d) AS old", d.Quote(table), d.Quote(column), d.Parameter(1), most)
}

// RemoveOld removes the oldest of those, so many.
func (d Dialect) RemoveOld(table string, key []string, column string, most int) string {
	oldest := fmt.Sprintf("%s < %s ORDER BY %s LIMIT %d", d.Quote(column), d.Parameter(1), d.Quote(column), most)
	if d.OnDuplicateKey {
		return "DELETE FROM " + d.Quote(table) + " WHERE " + oldest
	}
	return fmt.Sprintf("DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s)", d.Quote(table), d.Quoted(key), d.Quoted(key), d.Quote(table), oldest)
}

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

// Open returns the database at a URL: postgres://USER:PASSWORD@HOST:PORT/NAME, mysql://USER:PASSWORD@HOST:PORT/NAME, or
// sqlite:PATH. It connects to nothing yet. name is what the database is
// told of who uses it. mode is the permissions of a file that is made; zero leaves them to the umask.
func Open(url, name string, mode fs.FileMode) (DB, error) {
	scheme, rest, _ := strings.Cut(url, ":")
	switch scheme {
	case "postgres", "postgresql":
		return openPostgres(url, name)
	case "mysql", "mariadb":
		return openMySQL(url, name)
	case "sqlite":
		return openSQLite(rest, mode)
	}
	return nil, errors.New("is of no database that is known; postgres://HOST/NAME, mysql://HOST/NAME and sqlite:PATH are")
}
