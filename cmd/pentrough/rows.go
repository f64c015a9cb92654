package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"text/tabwriter"

	"github.com/pentrough/pentrough/internal/database"
)

// listPage is the number of rows after which a table may change the widths of its columns.
const listPage = 100

// rowList prints rows of the store: of the ledger or of the dead letters.
type rowList[R any] struct {
	// limit is the largest number of rows to print; 0 prints all.
	limit int
	// With json, encode prints each row. Otherwise the rows form a table: head is its heading, and
	// line returns the cells of a row.
	json   bool
	encode func(io.Writer, R) error
	head   string
	line   func(R) string
}

// print prints the rows and returns how many it printed.
func (l rowList[R]) print(out io.Writer, rows iter.Seq2[R, error]) (shown int, err error) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for r, err := range rows {
		if err != nil {
			return shown, err
		}
		if l.limit > 0 && shown == l.limit {
			break
		}
		shown++
		if l.json {
			if err := l.encode(out, r); err != nil {
				return shown, err
			}
			continue
		}
		if shown == 1 {
			fmt.Fprintln(table, l.head)
		}
		fmt.Fprintln(table, l.line(r))
		if shown%listPage == 0 {
			if err := table.Flush(); err != nil {
				return shown, err
			}
		}
	}
	return shown, table.Flush()
}

func checkLimit(limit int) error {
	if limit < 0 {
		return advise(fmt.Errorf("--limit %d is negative", limit), "0 shows all")
	}
	return nil
}

// printMore tells the user that the limit left rows out.
func printMore(out io.Writer, shown int, chosen int64) {
	fmt.Fprintf(out, "%d of %d rows; --limit 0 shows all\n", shown, chosen)
}

// adviseStore adds to an error of the store what to do next. file is the configuration that names
// the store. makes says what creates the store, and lost says what to do about a damaged file.
func adviseStore(err error, file, makes, lost string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, database.ErrNone):
		return advise(err, "%s when it first runs; see [store] in %s: a relative path there starts at the working directory", makes, file)
	case errors.Is(err, database.ErrSchema):
		return advise(err, "use the version of pentrough that wrote it; a host of a newer version updates it when it starts")
	case errors.Is(err, database.ErrNotSQLite):
		return advise(err, "see path of [store] in %s", file)
	case errors.Is(err, database.ErrDamaged):
		return advise(err, "%s", lost)
	case errors.Is(err, fs.ErrPermission):
		return advise(err, "run this as the user who runs the host")
	default:
		return advise(err, "check [store] in %s, and that the database can be reached", file)
	}
}
