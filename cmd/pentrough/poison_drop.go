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
		Short: "Mark rows about which nothing needs to be done",
		Long: `Mark these rows, or every new row that the flags choose, as dropped. They are shown no more, and removed when their time is over or their
place is needed; until then --force of replay sends them all the same.`,
		Example: `  pentrough poison drop -c gateway.toml 17 18
  pentrough poison drop -c gateway.toml --cause "no JSON" --yes`,
		RunE: v.operate(dropLetters),
	}
	v.narrows(cmd, "new")
	f := cmd.Flags()
	f.BoolVar(&v.all, "all", false, "every row that the other flags choose")
	f.BoolVar(&v.force, "force", false, "also rows whose replay was cut off a minute ago or more")
	f.BoolVarP(&v.yes, "yes", "y", false, "don't ask")
	return cmd
}

func dropLetters(ctx context.Context, w *poisonWork, args []string) error {
	w.all = w.all || len(args) == 0 && narrowed(w.cmd)
	rows, err := w.chosen(ctx, args)
	if err != nil {
		return err
	}
	if len(args) == 0 && !w.yes {
		f, err := w.filter(w.cmd, w.open()...)
		if err != nil {
			return err
		}
		n, err := w.Count(ctx, f)
		if err != nil {
			return err
		}
		if n > 0 {
			if err := agreed(w.cmd, fmt.Sprintf("drop %s?", rowCount(int(n))), "dropped"); err != nil {
				return err
			}
		}
	}
	dropped, passed, failed := w.drop(ctx, rows)
	out := w.cmd.OutOrStdout()
	if passed > 0 {
		fmt.Fprintf(out, "somebody else took %s\n", rowCount(passed))
	}
	if dropped > 0 || len(failed) == 0 {
		fmt.Fprintf(out, "dropped %s\n", rowCount(dropped))
	}
	return w.failures(failed, "dropped")
}

// drop drops rows page by page, and leaves alone what somebody else took meanwhile.
func (w *poisonWork) drop(ctx context.Context, rows iter.Seq2[deadletters.Row, error]) (dropped, passed int, failed []error) {
	var page []deadletters.Row
	flush := func() bool {
		if len(page) == 0 {
			return true
		}
		n, err := w.Drop(ctx, page)
		if err != nil {
			failed = append(failed, w.advised(err))
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
			failed = append(failed, w.advised(err))
			if r.Number == 0 && !errors.Is(err, deadletters.ErrNoRow) {
				return dropped, passed, failed // the store can't be read
			}
		}
	}
	flush()
	return dropped, passed, failed
}
