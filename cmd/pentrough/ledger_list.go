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

	"github.com/pentrough/pentrough/internal/ledger"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/router/middleware"
)

func (v *ledgerVerb) list(ctx context.Context, cmd *cobra.Command, store ledgerStore, _ []string) error {
	if err := checkLimit(v.limit); err != nil {
		return err
	}
	f, err := v.filter(cmd)
	if err != nil {
		return err
	}
	if len(f.States) == 0 && !v.all {
		f.States = []ledger.State{ledger.Writing, ledger.Held, ledger.Done}
	}
	return withInspector(ctx, store, func(in *ledger.Inspector) error {
		shown, err := v.print(ctx, cmd.OutOrStdout(), in, f)
		if err != nil || v.json {
			return err
		}
		return v.printSummary(ctx, cmd.OutOrStdout(), in, f, shown)
	})
}

// print prints the rows that f chooses, up to the limit, and returns how many it printed.
func (v *ledgerVerb) print(ctx context.Context, out io.Writer, in *ledger.Inspector, f ledger.Filter) (shown int, err error) {
	return rowList[ledger.Entry]{
		limit: v.limit, json: v.json, head: "STATE\tATTEMPTS\tPIPELINE\tDEVICE\tID\tCHANGED", encode: printEntryJSON,
		line: func(e ledger.Entry) string {
			return fmt.Sprintf("%s\t%d\t%s\t%s\t%s\t%s", e.State, e.Attempts, printable.Text(e.Key.Pipeline), orDash(printable.Text(e.Key.Device)), printable.Text(e.Key.ID), localTime(e.Changed))
		},
	}.print(out, in.Entries(ctx, f))
}

// printSummary prints how many rows there are if not all are shown.
func (v *ledgerVerb) printSummary(ctx context.Context, out io.Writer, in *ledger.Inspector, f ledger.Filter, shown int) error {
	chosen := int64(shown)
	if v.limit > 0 && shown == v.limit {
		var err error
		if chosen, err = in.Count(ctx, f); err != nil {
			return err
		}
	}
	switch {
	case chosen > int64(shown):
		printMore(out, shown, chosen)
	case shown > 0:
	case v.all || len(v.states) > 0 || f.Pipeline != nil || f.Device != nil || f.ID != nil:
		fmt.Fprintln(out, "no row matches")
	default:
		confirmed, err := in.Count(ctx, ledger.Filter{States: []ledger.State{ledger.Confirmed}})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "no unfinished rows; --all shows the %d confirmed ones\n", confirmed)
	}
	return nil
}

func (v *ledgerVerb) newShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show ID -c FILE",
		Short: "Show everything that the ledger has about an id",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return nil
			}
			return advise(fmt.Errorf("show takes one id, not %d", len(args)), "pentrough ledger lists the ids")
		},
		RunE: v.run(v.show),
	}
	v.addRowFlags(cmd)
	cmd.Flags().BoolVar(&v.json, "json", false, "print each row as a line of JSON")
	cmd.Flags().BoolVar(&v.full, "full", false, "show payloads in full")
	return cmd
}

func (v *ledgerVerb) show(ctx context.Context, cmd *cobra.Command, store ledgerStore, args []string) error {
	f, err := v.filter(cmd)
	if err != nil {
		return err
	}
	f.ID = &args[0]
	found := false
	err = withInspector(ctx, store, func(in *ledger.Inspector) error {
		for e, err := range in.Entries(ctx, f) {
			if err != nil {
				return err
			}
			if err := v.describe(cmd.OutOrStdout(), e); err != nil {
				return err
			}
			found = true
		}
		return nil
	})
	if err == nil && !found {
		return noSuchID(args[0])
	}
	return err
}

func noSuchID(id string) error {
	return advise(fmt.Errorf("the ledger has no row with the id %q", id), "pentrough ledger --all lists the ids; the host removes a confirmed id when dedup's retention is over")
}

// stateMeanings explains each state.
var stateMeanings = map[ledger.State]string{
	ledger.Writing:   "it has begun, and its outcome isn't recorded yet",
	ledger.Held:      "the host holds it until its device connects",
	ledger.Done:      "not all of its outputs are confirmed yet",
	ledger.Confirmed: "it is finished; the row stays so that a duplicate is recognised",
}

// maxShownPayload is how many bytes of a payload are shown without --full.
const maxShownPayload = 1000

// describe prints everything about a row.
func (v *ledgerVerb) describe(w io.Writer, e ledger.Entry) error {
	if v.json {
		return printEntryJSON(w, e)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n", printable.Text(e.Key.ID))
	field := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "  %-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	field("pipeline", "%s", printable.Text(e.Key.Pipeline))
	field("device", "%s", orDash(printable.Text(e.Key.Device)))
	field("state", "%s: %s", e.State, stateMeanings[e.State])
	field("attempts", "%d", e.Attempts)
	field("changed", "%s", localTime(e.Changed))
	field("digest", "%x", e.Digest)
	field("number", "%d", e.Number)
	if e.Flaw != nil {
		field("flaw", "%v; pentrough ledger check --repair removes it", e.Flaw)
	}
	for i, o := range e.Outputs {
		destination := o.Destination
		if destination == "" {
			destination = "the pipeline's `to`"
		}
		field(fmt.Sprintf("output %d", i+1), "to %s", destination)
		for _, key := range slices.Sorted(maps.Keys(o.Metadata)) {
			field("", "%s: %s", printable.Text(key), printable.Text(o.Metadata[key]))
		}
		field("", "%s", v.payloadText(o.Payload))
	}
	_, err := w.Write(out.Bytes())
	return err
}

// payloadText returns a payload for people: one line of text, or hex if it isn't text.
func (v *ledgerVerb) payloadText(payload []byte) string {
	shown := payload
	if !v.full && len(shown) > maxShownPayload {
		shown = shown[:maxShownPayload]
		for len(shown) > 0 && utf8.Valid(payload) && !utf8.Valid(shown) {
			shown = shown[:len(shown)-1]
		}
	}
	text := hex.EncodeToString(shown)
	if utf8.Valid(payload) {
		text = oneLine(shown)
	}
	if len(shown) < len(payload) {
		text += fmt.Sprintf(" ... --full shows all %d bytes", len(payload))
	}
	return text
}

// entryJSON is a row of the ledger as JSON.
type entryJSON struct {
	Number   int64        `json:"number"`
	Pipeline string       `json:"pipeline"`
	ID       string       `json:"id"`
	Device   string       `json:"device"`
	State    string       `json:"state"`
	Attempts int          `json:"attempts"`
	Changed  time.Time    `json:"changed"`
	Digest   string       `json:"digest"`
	Outputs  []outputJSON `json:"outputs,omitempty"`
	Flaw     string       `json:"flaw,omitempty"`
}

// outputJSON is a message that a command produced. A payload that isn't UTF-8 is in
// payload_base64.
type outputJSON struct {
	UUID          string              `json:"uuid"`
	Destination   middleware.TopicRef `json:"destination,omitempty"`
	Metadata      map[string]string   `json:"metadata,omitempty"`
	Payload       *string             `json:"payload,omitempty"`
	PayloadBase64 []byte              `json:"payload_base64,omitempty"`
}

func printEntryJSON(out io.Writer, e ledger.Entry) error {
	line := entryJSON{
		Number: e.Number, Pipeline: e.Key.Pipeline, ID: e.Key.ID, Device: e.Key.Device, State: e.State.String(), Attempts: e.Attempts,
		Changed: e.Changed, Digest: hex.EncodeToString(e.Digest[:]),
	}
	if e.Flaw != nil {
		line.Flaw = e.Flaw.Error()
	}
	for _, o := range e.Outputs {
		j := outputJSON{UUID: o.UUID, Destination: o.Destination, Metadata: o.Metadata}
		if text := string(o.Payload); utf8.ValidString(text) {
			j.Payload = &text
		} else {
			j.PayloadBase64 = o.Payload
		}
		line.Outputs = append(line.Outputs, j)
	}
	return json.NewEncoder(out).Encode(line)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func localTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
