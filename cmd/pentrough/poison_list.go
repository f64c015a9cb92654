package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/deadletters"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/transports"
)

func (v *poisonVerb) newList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list -c FILE",
		Short: "List the rows, the newest first",
		Args:  fileByFlag,
		RunE:  v.runReading(listLetters),
	}
	v.addRowFlags(cmd, "new, replaying")
	cmd.Flags().IntVarP(&v.limit, "limit", "n", 100, "show at most this many rows; 0 shows all")
	cmd.Flags().BoolVar(&v.json, "json", false, "print each row as a line of JSON")
	return cmd
}

// maxShownCause is how many bytes of a cause are shown in a list.
const maxShownCause = 100

func listLetters(ctx context.Context, w *poisonWork, _ []string) error {
	if err := checkLimit(w.limit); err != nil {
		return err
	}
	f, err := w.filter(w.cmd, deadletters.New, deadletters.Replaying)
	if err != nil {
		return err
	}
	shown, err := rowList[deadletters.Row]{
		limit: w.limit, json: w.json, head: "NUMBER\tSTATE\tPOISONED\tPIPELINE\tATTEMPTS\tID\tCAUSE",
		encode: func(out io.Writer, r deadletters.Row) error { return json.NewEncoder(out).Encode(rowJSON(r)) },
		line: func(r deadletters.Row) string {
			return fmt.Sprintf("%d\t%s\t%s\t%s\t%d\t%s\t%s", r.Number, r.State, localTime(r.Time), orDash(printable.Text(r.Pipeline)), r.Attempts,
				printable.Text(r.MessageID), orDash(printable.Text(truncate(r.Cause, maxShownCause))))
		},
	}.print(w.cmd.OutOrStdout(), w.Rows(ctx, f, deadletters.NewestFirst))
	if err != nil || w.json {
		return err
	}
	return w.printSummary(ctx, f, shown)
}

// printSummary prints how many rows there are if not all are shown.
func (w *poisonWork) printSummary(ctx context.Context, f deadletters.Filter, shown int) error {
	out := w.cmd.OutOrStdout()
	if shown == 0 && hasRowFlags(w.cmd) {
		fmt.Fprintln(out, "no row matches")
		return nil
	}
	if shown == 0 {
		f.States = nil
	}
	chosen, err := w.Count(ctx, f)
	switch {
	case err != nil:
		return err
	case shown == 0:
		fmt.Fprintf(out, "no new rows; --state replayed,dropped shows the %d replayed or dropped ones\n", chosen)
	case chosen > int64(shown):
		printMore(out, shown, chosen)
	}
	return nil
}

// truncate returns at most n bytes of a text, and dots if something is missing.
func truncate(text string, n int) string {
	if len(text) <= n {
		return text
	}
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "..."
}

func (v *poisonVerb) newShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NUMBER -c FILE",
		Short: "Show a whole row: cause, properties, headers and body",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return advise(fmt.Errorf("show takes one row's number, not %d", len(args)), "pentrough poison list shows the numbers")
		},
		RunE: v.runReading(showLetter),
	}
	cmd.Flags().BoolVar(&v.json, "json", false, "print the row as a line of JSON")
	cmd.Flags().BoolVar(&v.hex, "hex", false, "show the body in hex, even if it is text")
	cmd.MarkFlagsMutuallyExclusive("json", "hex")
	return cmd
}

func showLetter(ctx context.Context, w *poisonWork, args []string) error {
	numbers, err := rowNumbers(args)
	if err != nil {
		return err
	}
	r, err := w.Row(ctx, numbers[0])
	if err != nil {
		return err
	}
	if w.json {
		return json.NewEncoder(w.cmd.OutOrStdout()).Encode(fullRowJSON(r))
	}
	_, err = w.cmd.OutOrStdout().Write(describeRow(r, w.hex))
	return err
}

// describeRow describes everything about a row for people.
func describeRow(r deadletters.Row, asHex bool) []byte {
	var out bytes.Buffer
	field := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "  %-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&out, "row %d\n", r.Number)
	state := r.State.String()
	if r.Operator != "" {
		state += fmt.Sprintf(" since %s, by %s", localTime(r.Changed), printable.Text(r.Operator))
	}
	field("state", "%s", state)
	field("cause", "%s", orDash(printable.Text(r.Cause)))
	field("kind", "%s", orDash(printable.Text(r.Kind)))
	field("pipeline", "%s", orDash(printable.Text(r.Pipeline)))
	field("handler", "%s", orDash(printable.Text(r.Handler)))
	field("attempts", "%d", r.Attempts)
	field("poisoned", "%s", localTime(r.Time))
	field("kept", "%s, by pipeline %s of host %s", localTime(r.Kept), printable.Text(r.Keeper), printable.Text(r.Host))
	field("id", "%s", printable.Text(r.MessageID))
	field("from", "%s", orDash(printable.Text(string(r.From))))
	field("exchange", "%s", orDash(printable.Text(r.Exchange)))
	field("routing key", "%s", orDash(printable.Text(r.RoutingKey)))
	name := "metadata"
	for _, key := range slices.Sorted(maps.Keys(r.Metadata)) {
		field(name, "%s: %s", printable.Text(key), printable.Text(r.Metadata[key]))
		name = ""
	}
	field("body", "%d bytes", len(r.Body))
	switch {
	case len(r.Body) == 0:
	case asHex || printable.Lines(string(r.Body)) != string(r.Body):
		out.WriteString(hex.Dump(r.Body))
	default:
		out.Write(r.Body)
		out.WriteString("\n")
	}
	return out.Bytes()
}

// deadLetterJSON is a row as JSON. A body that isn't UTF-8 is in body_base64.
type deadLetterJSON struct {
	Number     int64               `json:"number"`
	State      string              `json:"state"`
	Changed    time.Time           `json:"changed"`
	Operator   string              `json:"operator,omitempty"`
	Cause      string              `json:"cause"`
	Kind       string              `json:"kind"`
	Pipeline   string              `json:"pipeline"`
	Handler    string              `json:"handler"`
	Attempts   int                 `json:"attempts"`
	Poisoned   time.Time           `json:"poisoned"`
	Kept       time.Time           `json:"kept"`
	Keeper     string              `json:"keeper"`
	Host       string              `json:"host"`
	ID         string              `json:"id"`
	From       transports.TopicRef `json:"from"`
	Exchange   string              `json:"exchange"`
	RoutingKey string              `json:"routing_key"`
	Size       int64               `json:"size"`
	Metadata   map[string]string   `json:"metadata,omitempty"`
	// Headers are in the form in which their transport wrote them, with their types.
	Headers    json.RawMessage `json:"headers,omitempty"`
	Body       *string         `json:"body,omitempty"`
	BodyBase64 []byte          `json:"body_base64,omitempty"`
}

func rowJSON(r deadletters.Row) deadLetterJSON {
	return deadLetterJSON{
		Number: r.Number, State: r.State.String(), Changed: r.Changed, Operator: r.Operator, Cause: r.Cause, Kind: r.Kind, Pipeline: r.Pipeline,
		Handler: r.Handler, Attempts: r.Attempts, Poisoned: r.Time, Kept: r.Kept, Keeper: r.Keeper, Host: r.Host, ID: r.MessageID, From: r.From,
		Exchange: r.Exchange, RoutingKey: r.RoutingKey, Size: r.Size,
	}
}

func fullRowJSON(r deadletters.Row) deadLetterJSON {
	j := rowJSON(r)
	j.Metadata, j.Headers = r.Metadata, r.Headers
	if text := string(r.Body); utf8.ValidString(text) {
		j.Body = &text
	} else {
		j.BodyBase64 = r.Body
	}
	return j
}
