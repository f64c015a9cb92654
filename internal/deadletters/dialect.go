package deadletters

import (
	"embed"
	"strings"

	"github.com/pentrough/pentrough/internal/database"
)

//go:embed migrations
var migrations embed.FS

// dialect has the parts of statements that differ between databases.
type dialect struct {
	database.Schema
	// now is an expression for the database's time in Unix milliseconds. All hosts and operators
	// use this clock.
	now string
	// position is the function that finds a text in another one.
	position string
}

// statement returns the text of a statement for the database, with its placeholders filled in.
func (d *dialect) statement(text string) string {
	return d.Positional(strings.NewReplacer("{table}", d.Table, "{now}", d.now, "{position}", d.position).Replace(text))
}

var postgresDialect = dialect{
	Schema: database.Schema{Dialect: database.PostgreSQL(), Migrations: migrations, Versions: "pentrough_poison_schema", Table: "pentrough_poison"},
	now:    `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`, position: "strpos",
}

var sqliteDialect = dialect{
	Schema: database.Schema{Dialect: database.SQLite(), Migrations: migrations, Versions: "goose_db_version", Table: "poison"},
	now:    `CAST(unixepoch('subsec') * 1000 AS INTEGER)`, position: "instr",
}
