// Package database opens and migrates databases and explains their errors: SQLite, PostgreSQL and
// MySQL. No other package does.
//
// A handler that writes into a user's database calls [Open] with a URL. The [DB] connects at its
// first use, and again after an outage. A part of the host that has its own tables, such as the
// ledger, opens a [File] or uses the settings of [ParsePostgres]. It migrates its tables with a
// [Schema]. [Explain] says what an error means.
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

// Statement is a statement with its arguments.
type Statement struct {
	// Text is written for the database, see [Dialect]. Each text is prepared once and kept, so
	// there must be few different texts.
	Text string
	Args []any
	// Fit says that arguments are converted for the columns that they fill, see [JSON].
	Fit bool
}

// DB is a database. One goroutine at a time uses it. Its errors have a [Kind].
type DB interface {
	// Dialect returns how statements are written for the database.
	Dialect() Dialect
	// Apply executes all statements, in order, in one transaction. After an error of kind [Fault]
	// none of them has an effect. After an [Outage] all of them may have one.
	Apply(ctx context.Context, all []Statement) error
	// Query calls row for each row of a statement's result. scan reads the row.
	Query(ctx context.Context, s Statement, row func(scan func(dest ...any) error) error) error
	// Explain makes the database plan a statement without executing it. Its error reports unknown
	// tables and columns, arguments that don't fit, and an ON CONFLICT without a unique index.
	Explain(ctx context.Context, s Statement) error
	// CheckKey returns a [Fault] if no unique index is on the column alone, so that two rows could
	// have the same key. It returns nil where Explain already reports that.
	CheckKey(ctx context.Context, table, column string) error
	// Migrate executes the steps of a schema, each once. The table versions records the steps.
	Migrate(ctx context.Context, versions string, steps []string) error
	// CheckPlace returns why a change would now be lost or refused, or nil: a file was removed or
	// replaced, or a server is unreachable or read-only.
	CheckPlace(ctx context.Context) error
	// Close closes the connection. The next use connects again.
	Close() error
}

// Dialect says how statements are written for a database.
type Dialect struct {
	// Name is the name of the database, for people.
	Name string
	// Numbered says that parameters are $1, $2 and so on. Otherwise each is a ?.
	Numbered bool
	// Types has the types of columns.
	Types Types
	// OnDuplicateKey says that INSERT has ON DUPLICATE KEY UPDATE instead of ON CONFLICT. It
	// changes the columns from left to right and has no WHERE.
	OnDuplicateKey bool
	// quote is the quote around a name.
	quote string
	goose goose.Dialect
	// migrations is the folder of a [Schema] for this database. exists is a query that returns
	// whether a table exists. MySQL has neither.
	migrations, exists string
	// Durable is a statement that makes the current transaction reach the disk when it commits. It
	// is "" if none is needed.
	Durable string
	// Time converts a time to an argument.
	Time func(t time.Time) any
}

// Types has a database's names of types.
type Types struct {
	// Text is for texts that may be a key, and Long is for texts that may be long.
	Text, Long, Bool, Number, Time string
}

// Index is an index of a table.
type Index struct {
	Name    string
	Columns []string
	// Where is the condition of the rows in the index. MySQL ignores it, since its indexes have
	// all rows.
	Where string
}

// Create returns a statement that makes a table with indexes. In MySQL, where it can't be part of
// a transaction, it does nothing if the table exists.
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

// Quoted returns a list of names in quotes.
func (d Dialect) Quoted(names []string) string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = d.Quote(name)
	}
	return strings.Join(all, ", ")
}

// InsertNew returns a statement that inserts a row, with a parameter for each column. It does
// nothing if the table has the key already.
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

// CountOld returns a query that counts the rows whose time in column is before the parameter. It
// counts no more rows than most.
func (d Dialect) CountOld(table, column string, most int) string {
	return fmt.Sprintf("SELECT count(*) FROM (SELECT 1 AS one FROM %s WHERE %s < %s LIMIT %d) AS old", d.Quote(table), d.Quote(column), d.Parameter(1), most)
}

// RemoveOld returns a statement that removes rows whose time in column is before the parameter. It
// begins with the oldest, and removes no more rows than most.
func (d Dialect) RemoveOld(table string, key []string, column string, most int) string {
	oldest := fmt.Sprintf("%s < %s ORDER BY %s LIMIT %d", d.Quote(column), d.Parameter(1), d.Quote(column), most)
	if d.OnDuplicateKey {
		return "DELETE FROM " + d.Quote(table) + " WHERE " + oldest
	}
	return fmt.Sprintf("DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s)", d.Quote(table), d.Quoted(key), d.Quoted(key), d.Quote(table), oldest)
}

// Parameter returns how the nth parameter of a statement is written, from 1.
func (d Dialect) Parameter(n int) string {
	if d.Numbered {
		return fmt.Sprintf("$%d", n)
	}
	return "?"
}

// Quote returns the name of a table or a column in quotes. A dot separates a schema from its
// table.
func (d Dialect) Quote(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = d.quote + strings.ReplaceAll(p, d.quote, d.quote+d.quote) + d.quote
	}
	return strings.Join(parts, ".")
}

// Open returns the database at a URL: postgres://USER:PASSWORD@HOST:PORT/NAME,
// mysql://USER:PASSWORD@HOST:PORT/NAME, or sqlite:PATH. It doesn't connect yet. The database shows
// name as the name of the connection's program. mode has the permissions of a file that is made.
// If it is zero, the umask decides.
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
	return nil, errors.New("isn't the URL of a known database: postgres://HOST/NAME, mysql://HOST/NAME or sqlite:PATH")
}
