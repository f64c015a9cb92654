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

// shownFailures is how many rows are named of those with which something went wrong.
const shownFailures = 20

// replayTakes bounds the sending of one message. It ends before anybody else may take the row.
const replayTakes = deadletters.Abandoned / 3

func (v *poisonVerb) newReplay() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replay NUMBER... -c FILE",
		Short: "Send messages back to where they came from, with the same id",
		Long: `Send the messages of these rows, or with --all of every new row that the flags choose, back to where they came from: a broker gets them at
the exchange and with the routing key that they had, with their id, properties, headers and body. The oldest goes first.

Each row is taken before its message is sent, so that two operators never send it twice. Whoever is cut off in between leaves a row
of which it isn't known whether it was sent: after a minute --force sends it again. --force also sends what was replayed or dropped.`,
		Example: `  pentrough poison replay -c gateway.toml 17 18
  pentrough poison replay -c gateway.toml --all --pipeline commands --since 1h
  pentrough poison replay -c gateway.toml 19 --to broker:commands`,
		RunE: v.operate(replayLetters),
	}
	v.narrows(cmd, "new")
	f := cmd.Flags()
	f.BoolVar(&v.all, "all", false, "every row that the other flags choose")
	f.BoolVar(&v.force, "force", false, "also rows that were replayed or dropped, or whose replay was cut off a minute ago or more")
	f.StringVar(&v.to, "to", "", "send them to this topic of a broker instead, as transport:topic")
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
	rows, err := w.chosen(ctx, args)
	if err != nil {
		return err
	}
	if settled := slices.DeleteFunc(slices.Clone(w.states), func(s string) bool { return s == deadletters.New.String() }); len(settled) > 0 && !w.force {
		return advise(fmt.Errorf("without --force only new rows are replayed, not %s", strings.Join(settled, ", ")), "--force replays them all the same, with the same ids")
	}
	r := replay{poisonWork: w, outlets: newOutlets(w)}
	defer func() { err = errors.Join(err, r.outlets.close(ctx)) }()
	for row, err := range rows {
		if err == nil {
			err = r.one(ctx, row)
		}
		if goesOn := err == nil || r.note(err); !goesOn {
			break
		}
	}
	return r.ended()
}

// chosen are the rows that numbers or flags name, without what is large of them.
func (w *poisonWork) chosen(ctx context.Context, args []string) (iter.Seq2[deadletters.Row, error], error) {
	numbers, err := rowNumbers(args)
	switch {
	case err != nil:
		return nil, err
	case len(numbers) > 0 && (w.all || narrowed(w.cmd)):
		return nil, advise(errors.New("numbers name their rows alone"), "leave out the flags that choose rows, or the numbers")
	case len(numbers) == 0 && !w.all:
		return nil, advise(fmt.Errorf("%s what?", w.cmd.Name()), "name numbers of rows (pentrough poison list shows them), or say --all, which takes every row that the other flags choose")
	case len(numbers) > 0:
		return func(yield func(deadletters.Row, error) bool) {
			for _, n := range numbers {
				if !yield(w.Row(ctx, n)) {
					return
				}
			}
		}, nil
	}
	f, err := w.filter(w.cmd, w.open()...)
	if err != nil {
		return nil, err
	}
	// What is replayed may fail again at once: those rows are newer than all that are there now.
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

// open are the states of rows that --all takes.
func (w *poisonWork) open() []deadletters.State {
	if w.force {
		return []deadletters.State{deadletters.New, deadletters.Replaying}
	}
	return []deadletters.State{deadletters.New}
}

// one replays a row.
func (r *replay) one(ctx context.Context, row deadletters.Row) error {
	at := func(err error) error { return fmt.Errorf("row %d: %w", row.Number, err) }
	out, err := r.outlets.of(ctx, row)
	if err != nil {
		return at(err)
	}
	c, err := r.Claim(ctx, row.Number, r.force)
	if err != nil {
		if r.all && (errors.Is(err, deadletters.ErrTaken) || errors.Is(err, deadletters.ErrNoRow) || errors.Is(err, deadletters.ErrSettled) && row.State == deadletters.New) {
			r.passed++ // somebody else was here since it was listed
			return nil
		}
		return err
	}
	if row.State == deadletters.Replaying {
		fmt.Fprintf(r.cmd.ErrOrStderr(), "row %d: %s began to replay it at %s, and it isn't known whether it was sent: it may come twice, with the id %s\n",
			row.Number, printable.Text(row.Operator), localTime(row.Changed), printable.Text(row.MessageID))
	}
	err = out.send(ctx, c)
	// What is known is recorded, also when somebody wants to stop.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), takes)
	defer cancel()
	switch {
	case err == nil:
		r.sent++
		fmt.Fprintf(r.cmd.OutOrStdout(), "row %d, id %s: replayed to %s\n", c.Number, printable.Text(c.MessageID), out.place(&c.Row))
		if err := r.Replayed(end, c); err != nil {
			return advise(fmt.Errorf("row %d was sent, and that could not be recorded: %w", c.Number, err),
				"don't replay it again; when the store can be reached: pentrough poison drop %d --force, after a minute", c.Number)
		}
		return nil
	case out.certain(err):
		return errors.Join(at(err), r.Release(end, c))
	default:
		return advise(at(err), "whether it was sent isn't known: look at its receiver; after a minute --force sends it again, with the same id %s", printable.Text(c.MessageID))
	}
}

// note remembers an error, and says whether other rows may do better.
func (r *replay) note(err error) bool {
	r.failed = append(r.failed, r.advised(r.outlets.advised(err)))
	for _, own := range []error{
		transports.ErrUnroutable, transports.ErrUnsendable, errNoWay, deadletters.ErrNoRow, deadletters.ErrTaken, deadletters.ErrUndecided, deadletters.ErrSettled,
	} {
		if errors.Is(err, own) {
			return true
		}
	}
	return false
}

// ended says what became of all.
func (r *replay) ended() error {
	out := r.cmd.OutOrStdout()
	if r.passed > 0 {
		fmt.Fprintf(out, "somebody else took %s\n", rowCount(r.passed))
	}
	switch {
	case r.sent > 0:
		fmt.Fprintf(out, "replayed %s\n", rowCount(r.sent))
	case len(r.failed) == 0:
		fmt.Fprintln(out, "nothing was left to replay")
	}
	return r.failures(r.failed, "replayed")
}

// failures is one error of all that went wrong; the last tells what to do next.
func (w *poisonWork) failures(failed []error, done string) error {
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
		next := "pentrough poison show looks at a row"
		if a, ok := errors.AsType[*advisedError](failed[n-1]); ok {
			next = a.next
		}
		return advise(fmt.Errorf("%s could not be %s", rowCount(n), done), "%s", next)
	}
}

// replayed is a row's message as it is sent again: without what belongs to the broker and to its delivery.
func replayed(ctx context.Context, r *deadletters.Row) *message.Message {
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
