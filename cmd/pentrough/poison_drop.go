package main

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/deadletters"
)

// dropPage is how many rows are dropped in one transaction.
const dropPage = 500

func (v *poisonVerb) newDrop() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop NUMBER... -c FILE",
		Short: "Mark rows that need no more work",
		Long: `Mark these rows as dropped, or every new row that the flags choose. By default, "poison list" no
longer shows them. The handler "store" removes them after the time keep, or earlier if there are
more than max_rows. Until then, "poison replay --force" can still send them.`,
		Example: `  pentrough poison drop -c gateway.toml 17 18
  pentrough poison drop -c gateway.toml --cause "no JSON" --yes`,
		RunE: v.runOperating(dropLetters),
	}
	v.addRowFlags(cmd, "new")
	f := cmd.Flags()
	f.BoolVar(&v.all, "all", false, "every row that the other flags choose")
	f.BoolVar(&v.force, "force", false, "also rows whose replay was interrupted at least a minute ago")
	f.BoolVarP(&v.yes, "yes", "y", false, "don't ask for confirmation")
	return cmd
}

func dropLetters(ctx context.Context, w *poisonWork, args []string) error {
	w.all = w.all || len(args) == 0 && hasRowFlags(w.cmd)
	rows, err := w.chosenRows(ctx, args)
	if err != nil {
		return err
	}
	if len(args) == 0 && !w.yes {
		f, err := w.filter(w.cmd, w.openStates()...)
		if err != nil {
			return err
		}
		n, err := w.Count(ctx, f)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := confirmByUser(w.cmd, fmt.Sprintf("drop %s?", rowCount(int(n))), "dropped"); err != nil {
				return err
			}
		}
	}
	dropped, passed, failed := w.drop(ctx, rows)
	out := w.cmd.OutOrStdout()
	if passed > 0 {
		fmt.Fprintf(out, "another operator took %s\n", rowCount(passed))
	}
	if dropped > 0 || len(failed) == 0 {
		fmt.Fprintf(out, "dropped %s\n", rowCount(dropped))
	}
	return w.joinFailures(failed, "dropped")
}

// drop drops rows page by page. It leaves out rows that another operator has taken since they were
// listed.
func (w *poisonWork) drop(ctx context.Context, rows iter.Seq2[deadletters.Row, error]) (dropped, passed int, failed []error) {
	var page []deadletters.Row
	flush := func() bool {
		if len(page) == 0 {
			return true
		}
		n, err := w.Drop(ctx, page)
		if err != nil {
			failed = append(failed, w.adviseError(err))
			return false
		}
		dropped += n
		passed += len(page) - n
		page = page[:0]
		return true
	}
	for r, err := range rows {
		if err == nil {
			err = r.Droppable(w.force)
		}
		switch {
		case err == nil:
			r.Body, r.Metadata = nil, nil
			page = append(page, r)
			if len(page) == dropPage && !flush() {
				return dropped, passed, failed
			}
		case w.all && errors.Is(err, deadletters.ErrTaken):
			passed++
		default:
			failed = append(failed, w.adviseError(err))
			if r.Number == 0 && !errors.Is(err, deadletters.ErrNoRow) {
				return dropped, passed, failed // the store can't be read
			}
		}
	}
	flush()
	return dropped, passed, failed
}
