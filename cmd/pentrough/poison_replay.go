package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/deadletters"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

// shownFailures is how many failed rows are named.
const shownFailures = 20

// replayTimeout bounds the sending of one message. It is over before another operator may take the
// row.
const replayTimeout = deadletters.Abandoned / 3

func (v *poisonVerb) newReplay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay NUMBER... -c FILE",
		Short: "Send messages back to where they came from, with the same id",
		Long: `Send messages back to where they came from. With --all, send every new row that the other flags
choose, the oldest first. The broker gets each message at its old exchange, with its old routing
key, id, properties, headers and body.

The command marks each row as replaying before it sends the message, so that two operators don't
send it twice. If the command is interrupted after it has marked a row, it isn't known whether the
message was sent. After a minute, --force sends it again. --force also sends rows that were replayed
or dropped.`,
		Example: `  pentrough poison replay -c gateway.toml 17 18
  pentrough poison replay -c gateway.toml --all --pipeline commands --since 1h
  pentrough poison replay -c gateway.toml 19 --to broker:commands`,
		RunE: v.runOperating(replayLetters),
	}
	v.addRowFlags(cmd, "new")
	f := cmd.Flags()
	f.BoolVar(&v.all, "all", false, "every row that the other flags choose")
	f.BoolVar(&v.force, "force", false, "also rows that were replayed or dropped, or whose replay was interrupted at least a minute ago")
	f.StringVar(&v.to, "to", "", "send the messages to this topic of a broker instead, as transport:topic")
	return cmd
}

// replay is one call of the verb.
type replay struct {
	*poisonWork
	outlets *outlets

	sent, passed int
	failed       []error
}

func replayLetters(ctx context.Context, w *poisonWork, args []string) (err error) {
	rows, err := w.chosenRows(ctx, args)
	if err != nil {
		return err
	}
	if settled := slices.DeleteFunc(slices.Clone(w.states), func(s string) bool { return s == deadletters.New.String() }); len(settled) > 0 && !w.force {
		return advise(fmt.Errorf("without --force only new rows are replayed, not %s", strings.Join(settled, ", ")), "with --force they are replayed too, with the same ids")
	}
	r := replay{poisonWork: w, outlets: newOutlets(w)}
	defer func() { err = errors.Join(err, r.outlets.close(ctx)) }()
	for row, err := range rows {
		if err == nil {
			err = r.replayRow(ctx, row)
		}
		if canContinue := err == nil || r.recordFailure(err); !canContinue {
			break
		}
	}
	return r.result()
}

// chosenRows returns the rows that numbers or flags name, without their bodies.
func (w *poisonWork) chosenRows(ctx context.Context, args []string) (iter.Seq2[deadletters.Row, error], error) {
	numbers, err := rowNumbers(args)
	switch {
	case err != nil:
		return nil, err
	case len(numbers) > 0 && (w.all || hasRowFlags(w.cmd)):
		return nil, advise(errors.New("numbers and flags that choose rows exclude each other"), "leave out the flags, or the numbers")
	case len(numbers) == 0 && !w.all:
		return nil, advise(fmt.Errorf("%s needs at least one row", w.cmd.Name()), "name numbers of rows (pentrough poison list shows them), or add --all for every row that the other flags choose")
	case len(numbers) > 0:
		return func(yield func(deadletters.Row, error) bool) {
			for _, n := range numbers {
				if !yield(w.Row(ctx, n)) {
					return
				}
			}
		}, nil
	}
	f, err := w.filter(w.cmd, w.openStates()...)
	if err != nil {
		return nil, err
	}
	// A replayed message may fail again at once and get a new row. Such rows have higher numbers
	// than all present rows, so they are left out.
	for r, err := range w.Rows(ctx, f, deadletters.NewestFirst) {
		if err != nil {
			return nil, err
		}
		f.Last = r.Number
		break
	}
	if f.Last == 0 {
		return func(func(deadletters.Row, error) bool) {}, nil
	}
	return w.Rows(ctx, f, deadletters.OldestFirst), nil
}

// openStates returns the states of the rows that --all takes.
func (w *poisonWork) openStates() []deadletters.State {
	if w.force {
		return []deadletters.State{deadletters.New, deadletters.Replaying}
	}
	return []deadletters.State{deadletters.New}
}

// replayRow replays one row.
func (r *replay) replayRow(ctx context.Context, row deadletters.Row) error {
	at := func(err error) error { return fmt.Errorf("row %d: %w", row.Number, err) }
	out, err := r.outlets.outletFor(ctx, row)
	if err != nil {
		return at(err)
	}
	c, err := r.Claim(ctx, row.Number, r.force)
	if err != nil {
		if r.all && (errors.Is(err, deadletters.ErrTaken) || errors.Is(err, deadletters.ErrNoRow) || errors.Is(err, deadletters.ErrSettled) && row.State == deadletters.New) {
			r.passed++ // another operator took it since it was listed
			return nil
		}
		return err
	}
	if row.State == deadletters.Replaying {
		fmt.Fprintf(r.cmd.ErrOrStderr(), "row %d: %s began a replay at %s, and it isn't known whether the message was sent: it may arrive twice, with the id %s\n",
			row.Number, printable.Text(row.Operator), localTime(row.Changed), printable.Text(row.MessageID))
	}
	err = out.send(ctx, c)
	// The outcome is recorded even if the user interrupts the command.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	switch {
	case err == nil:
		r.sent++
		fmt.Fprintf(r.cmd.OutOrStdout(), "row %d, id %s: replayed to %s\n", c.Number, printable.Text(c.MessageID), out.describeTarget(&c.Row))
		if err := r.Replayed(end, c); err != nil {
			return advise(fmt.Errorf("row %d was sent, but the store didn't record it: %w", c.Number, err),
				"don't replay the row again; when the store can be reached, and a minute has passed: pentrough poison drop %d --force", c.Number)
		}
		return nil
	case out.isNotSent(err):
		return errors.Join(at(err), r.Release(end, c))
	default:
		return advise(at(err), "it isn't known whether the message was sent: check its receiver; after a minute, --force sends it again with the same id %s", printable.Text(c.MessageID))
	}
}

// recordFailure records an error. It reports whether other rows may still succeed.
func (r *replay) recordFailure(err error) bool {
	r.failed = append(r.failed, r.adviseError(r.outlets.adviseError(err)))
	for _, own := range []error{
		transports.ErrUnroutable, transports.ErrUnsendable, errNoWay, deadletters.ErrNoRow, deadletters.ErrTaken, deadletters.ErrUndecided, deadletters.ErrSettled,
	} {
		if errors.Is(err, own) {
			return true
		}
	}
	return false
}

// result prints what was done and returns the failures.
func (r *replay) result() error {
	out := r.cmd.OutOrStdout()
	if r.passed > 0 {
		fmt.Fprintf(out, "another operator took %s\n", rowCount(r.passed))
	}
	switch {
	case r.sent > 0:
		fmt.Fprintf(out, "replayed %s\n", rowCount(r.sent))
	case len(r.failed) == 0:
		fmt.Fprintln(out, "there was nothing to replay")
	}
	return r.joinFailures(r.failed, "replayed")
}

// joinFailures prints the failures if there are several, and returns one error with the advice of
// the last.
func (w *poisonWork) joinFailures(failed []error, done string) error {
	switch n := len(failed); n {
	case 0:
		return nil
	case 1:
		return failed[0]
	default:
		for i, err := range failed {
			if i == shownFailures {
				fmt.Fprintln(w.cmd.ErrOrStderr(), "pentrough: and more")
				break
			}
			fmt.Fprintf(w.cmd.ErrOrStderr(), "pentrough: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		next := "pentrough poison show describes a row"
		if a, ok := errors.AsType[*advisedError](failed[n-1]); ok {
			next = a.next
		}
		return advise(fmt.Errorf("%s could not be %s", rowCount(n), done), "%s", next)
	}
}

// replayMessage returns the message to send again. It leaves out metadata that the broker or the
// old delivery had set.
func replayMessage(ctx context.Context, r *deadletters.Row) *message.Message {
	msg := message.NewMessage(r.MessageID, r.Body)
	for key, value := range r.Metadata {
		if !transports.OfBroker(key) {
			msg.Metadata[key] = value
		}
	}
	msg.Metadata[transports.MessageID] = r.MessageID
	if r.Headers != nil {
		ctx = transports.WithHeaders(ctx, transports.KeptHeaders(r.Headers))
	}
	msg.SetContext(ctx)
	return msg
}
