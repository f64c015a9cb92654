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

// listPage is after how many rows a table's columns may change their width.
const listPage = 100

// rowList prints rows of the store: the ledger's or the dead letters'.
type rowList[R any] struct {
	// limit is how many rows are printed at most; 0 is all.
	limit int
	// json prints each row with encode, and else as a line of a table below head.
	json   bool
	encode func(io.Writer, R) error
	head   string
	line   func(R) string
}

// print returns how many rows it printed.
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

// printMore says that a limit left rows out.
func printMore(out io.Writer, shown int, chosen int64) {
	fmt.Fprintf(out, "%d of %d rows; --limit 0 shows all\n", shown, chosen)
}

// adviseStore says of an error of the store that the configuration in file names what to do next.
// makes says who makes it, and lost what becomes of a damaged file.
func adviseStore(err error, file, makes, lost string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, database.ErrNone):
		return advise(err, "%s when it first runs; see [store] in %s: a path there counts from the working directory", makes, file)
	case errors.Is(err, database.ErrSchema):
		return advise(err, "use the pentrough that wrote it; a newer one updates it when its host starts")
	case errors.Is(err, database.ErrNotSQLite):
		return advise(err, "see path of [store] in %s", file)
	case errors.Is(err, database.ErrDamaged):
		return advise(err, "%s", lost)
	case errors.Is(err, fs.ErrPermission):
		return advise(err, "run this as the user who runs the host")
	default:
		return advise(err, "see [store] in %s, and whether what it names can be reached", file)
	}
}
