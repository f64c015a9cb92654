package deadletters

import (
	"embed"
	"strings"

	"github.com/pentrough/pentrough/internal/database"
)

//go:embed migrations
var migrations embed.FS

// dialect is how a database is spoken to.
type dialect struct {
	database.Schema
	// now is the database's time in Unix milliseconds: all hosts and operators have that one.
	now string
	// position is the function that finds a text in another.
	position string
}

// sql is a statement in the database's own words.
func (d *dialect) sql(statement string) string {
	return d.Positional(strings.NewReplacer("{table}", d.Table, "{now}", d.now, "{position}", d.position).Replace(statement))
}

var postgresDialect = dialect{
	Schema: database.Schema{Dialect: database.PostgreSQL(), Migrations: migrations, Versions: "pentrough_poison_schema", Table: "pentrough_poison"},
	now:    `(extract(epoch FROM clock_timestamp()) * 1000)::bigint`, position: "strpos",
}

var sqliteDialect = dialect{
	Schema: database.Schema{Dialect: database.SQLite(), Migrations: migrations, Versions: "goose_db_version", Table: "poison"},
	now:    `CAST(unixepoch('subsec') * 1000 AS INTEGER)`, position: "instr",
}
