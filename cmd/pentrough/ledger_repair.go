package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/database"
	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/printable"
)

func (v *ledgerVerb) newForget() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forget ID... -c FILE",
		Short: "Remove what the ledger has of ids, while no host runs",
		Long: `Remove all that the ledger has of these ids. A command with one of them that comes again runs again, as if it were new, also if its
device has it already. One that is held is in no other place: it isn't written any more. No host may use the store meanwhile.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return nil
			}
			return advise(errors.New("forget what?"), "name ids: pentrough ledger lists what there is")
		},
		RunE: v.run(v.forget),
	}
	v.narrows(cmd)
	cmd.Flags().BoolVarP(&v.yes, "yes", "y", false, "don't ask")
	return cmd
}

func (v *ledgerVerb) forget(ctx context.Context, cmd *cobra.Command, store ledgerStore, ids []string) error {
	f, err := v.filter(cmd)
	if err != nil {
		return err
	}
	return repairing(ctx, store, func(r *ledger.Repair) error {
		rows, err := rowsOf(ctx, r, f, ids)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		for _, e := range rows {
			note := ""
			if e.State == ledger.Held {
				note = ", only here: it won't be written, and no further result comes"
			}
			fmt.Fprintf(out, "%s of pipeline %s, device %s: %s%s\n", printable.Text(e.Key.ID), printable.Text(e.Key.Pipeline), orDash(printable.Text(e.Key.Device)), e.State, note)
		}
		if !v.yes {
			if err := agreed(cmd, fmt.Sprintf("forget %s, so that what comes again with them runs again?", rowCount(len(rows))), "removed"); err != nil {
				return err
			}
		}
		if err := forgetAll(ctx, r, rows); err != nil {
			return err
		}
		fmt.Fprintf(out, "forgot %s\n", rowCount(len(rows)))
		return nil
	})
}

// rowsOf returns the rows of these ids that f chooses; each must have one.
func rowsOf(ctx context.Context, r *ledger.Repair, f ledger.Filter, ids []string) ([]ledger.Entry, error) {
	var rows []ledger.Entry
	for _, id := range ids {
		f.ID = &id
		before := len(rows)
		for e, err := range r.Entries(ctx, f) {
			if err != nil {
				return nil, err
			}
			e.Outputs = nil
			rows = append(rows, e)
		}
		if len(rows) == before {
			return nil, noSuchID(id)
		}
	}
	return rows, nil
}

func forgetAll(ctx context.Context, r *ledger.Repair, rows []ledger.Entry) error {
	var numbers []int64
	for _, e := range rows {
		numbers = append(numbers, e.Number)
	}
	return r.Forget(ctx, numbers)
}

// agreed asks whoever sits at the terminal, before something is done ("removed").
func agreed(cmd *cobra.Command, question, done string) error {
	in := cmd.InOrStdin()
	if file, ok := in.(*os.File); ok {
		if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return advise(fmt.Errorf("nobody is there to be asked, so nothing was %s", done), "say --yes")
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return advise(fmt.Errorf("nothing was %s", done), "answer y, or say --yes")
	}
	return nil
}

func (v *ledgerVerb) newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Look for damage in the ledger, and remove rows that no host can use",
		Long: `Check a SQLite file page by page, and every row of the ledger. A row that can't be used keeps a host from starting; with --repair it is
removed, while no host runs. The exit code is 0 if nothing is wrong any more.`,
		Args: fileByFlag,
		RunE: v.run(v.check),
	}
	cmd.Flags().BoolVar(&v.repair, "repair", false, "remove the rows that no host can use; a command of theirs that comes again runs again")
	return cmd
}

// shownFlaws is how many rows are named of those that can't be used.
const shownFlaws = 20

func (v *ledgerVerb) check(ctx context.Context, cmd *cobra.Command, store ledgerStore, _ []string) error {
	out := cmd.OutOrStdout()
	if v.repair {
		return repairing(ctx, store, func(r *ledger.Repair) error {
			flawed, err := look(ctx, out, r.Inspector)
			if err != nil || len(flawed) == 0 {
				return err
			}
			if err := forgetAll(ctx, r, flawed); err != nil {
				return err
			}
			fmt.Fprintf(out, "removed %s\n", rowCount(len(flawed)))
			return nil
		})
	}
	return inspecting(ctx, store, func(in *ledger.Inspector) error {
		flawed, err := look(ctx, out, in)
		if err != nil || len(flawed) == 0 {
			return err
		}
		return advise(fmt.Errorf("%s can't be used, and keeps a host from starting", rowCount(len(flawed))),
			"stop the host and say --repair, which removes them: a command of theirs that comes again runs again")
	})
}

// look prints what is there, and returns the rows that can't be used.
func look(ctx context.Context, out io.Writer, in *ledger.Inspector) ([]ledger.Entry, error) {
	fmt.Fprintf(out, "%s: schema version %d\n", in.Place, in.Version)
	damage, err := in.Integrity(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		fmt.Fprintf(out, "  %s\n", printable.Text(d))
	}
	if len(damage) > 0 {
		return nil, fmt.Errorf("%s: %w", in.Place, database.ErrDamaged)
	}
	if err := tallies(ctx, out, in); err != nil {
		return nil, err
	}
	flawed, err := flaws(ctx, out, in)
	if err == nil && len(flawed) == 0 {
		fmt.Fprintln(out, "ok")
	}
	return flawed, err
}

// tallies prints how many rows there are.
func tallies(ctx context.Context, out io.Writer, in *ledger.Inspector) error {
	all, err := in.Tally(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range all {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", printable.Text(t.Pipeline), t.State, t.Rows)
	}
	return table.Flush()
}

// flaws prints and returns the rows that can't be used.
func flaws(ctx context.Context, out io.Writer, in *ledger.Inspector) ([]ledger.Entry, error) {
	var flawed []ledger.Entry
	for e, err := range in.Entries(ctx, ledger.Filter{}) {
		if err != nil {
			return nil, err
		}
		if e.Flaw == nil {
			continue
		}
		e.Outputs = nil
		switch flawed = append(flawed, e); {
		case len(flawed) <= shownFlaws:
			fmt.Fprintf(out, "  %s\n", printable.Text(e.Flaw.Error()))
		case len(flawed) == shownFlaws+1:
			fmt.Fprintln(out, "  and more")
		}
	}
	return flawed, nil
}

func rowCount(n int) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}
