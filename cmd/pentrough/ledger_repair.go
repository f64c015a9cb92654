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
		Short: "Remove ids from the ledger, while no host runs",
		Long: `Remove everything that the ledger has about these ids. Stop every host that uses the store first.

A redelivered command with such an id runs again like a new one, even if its device has already
received it. A held command exists only in the ledger: if you remove it, it is never written to its
device.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return nil
			}
			return advise(errors.New("forget needs at least one id"), "pentrough ledger lists the ids")
		},
		RunE: v.run(v.forget),
	}
	v.addRowFlags(cmd)
	cmd.Flags().BoolVarP(&v.yes, "yes", "y", false, "don't ask for confirmation")
	return cmd
}

func (v *ledgerVerb) forget(ctx context.Context, cmd *cobra.Command, store ledgerStore, ids []string) error {
	f, err := v.filter(cmd)
	if err != nil {
		return err
	}
	return withRepair(ctx, store, func(r *ledger.Repair) error {
		rows, err := findRows(ctx, r, f, ids)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		for _, e := range rows {
			note := ""
			if e.State == ledger.Held {
				note = ", stored only here: it won't be written, and it gets no further result"
			}
			fmt.Fprintf(out, "%s of pipeline %s, device %s: %s%s\n", printable.Text(e.Key.ID), printable.Text(e.Key.Pipeline), orDash(printable.Text(e.Key.Device)), e.State, note)
		}
		if !v.yes {
			if err := confirmByUser(cmd, fmt.Sprintf("forget %s, so that a redelivered command with such an id runs again?", rowCount(len(rows))), "removed"); err != nil {
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

// findRows returns the rows with these ids that f chooses. It returns an error if an id has no
// row.
func findRows(ctx context.Context, r *ledger.Repair, f ledger.Filter, ids []string) ([]ledger.Entry, error) {
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

// confirmByUser asks the user at the terminal before the verb changes something. done says what
// the change would be: "removed" or "dropped".
func confirmByUser(cmd *cobra.Command, question, done string) error {
	in := cmd.InOrStdin()
	if file, ok := in.(*os.File); ok {
		if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return advise(fmt.Errorf("nothing was %s: confirmation needs a terminal", done), "add --yes to go on without confirmation")
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return advise(fmt.Errorf("nothing was %s", done), "answer y, or add --yes")
	}
	return nil
}

func (v *ledgerVerb) newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Check the ledger for damage, and remove unusable rows",
		Long: `Check every row of the ledger, and in a SQLite file every page. A host doesn't start with a ledger
that has an unusable row. With --repair the command removes such rows; stop the host first.

The exit code is 0 if the ledger has no damage, or none after the repair.`,
		Args: fileByFlag,
		RunE: v.run(v.check),
	}
	cmd.Flags().BoolVar(&v.repair, "repair", false, "remove unusable rows; if the broker redelivers one of their commands, it runs again")
	return cmd
}

// shownFlaws is how many unusable rows are named.
const shownFlaws = 20

func (v *ledgerVerb) check(ctx context.Context, cmd *cobra.Command, store ledgerStore, _ []string) error {
	out := cmd.OutOrStdout()
	if v.repair {
		return withRepair(ctx, store, func(r *ledger.Repair) error {
			flawed, err := checkLedger(ctx, out, r.Inspector)
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
	return withInspector(ctx, store, func(in *ledger.Inspector) error {
		flawed, err := checkLedger(ctx, out, in)
		if err != nil || len(flawed) == 0 {
			return err
		}
		return advise(fmt.Errorf("%s can't be used, so no host can start with this ledger", rowCount(len(flawed))),
			"stop the host and add --repair to remove them; if the broker redelivers one of their commands, it runs again")
	})
}

// checkLedger prints what the ledger has, and returns the unusable rows.
func checkLedger(ctx context.Context, out io.Writer, in *ledger.Inspector) ([]ledger.Entry, error) {
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
	if err := printTallies(ctx, out, in); err != nil {
		return nil, err
	}
	flawed, err := printFlaws(ctx, out, in)
	if err == nil && len(flawed) == 0 {
		fmt.Fprintln(out, "ok")
	}
	return flawed, err
}

// printTallies prints how many rows each pipeline has in each state.
func printTallies(ctx context.Context, out io.Writer, in *ledger.Inspector) error {
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

// printFlaws prints and returns the unusable rows.
func printFlaws(ctx context.Context, out io.Writer, in *ledger.Inspector) ([]ledger.Entry, error) {
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
