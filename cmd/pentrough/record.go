package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/internal/recording"
)

// recordVerb is one call of pentrough record.
type recordVerb struct {
	admin     string
	device    string
	transport string
	next      bool
	lasting   time.Duration
	count     int
}

func newRecord() *cobra.Command {
	v := recordVerb{}
	cmd := &cobra.Command{
		Use:   "record DEVICE",
		Short: "Record what a device and the host send each other",
		Long: `Record what a device and the host send each other. The recording is lines of JSON, with
times. It is the input of pentrough replay and of the key replay in [[test]].

The recording covers the device's current connection. If the device is offline, or with --new, it
covers the next connection, from its first byte. The recording ends with the connection, with --for
or --count, or with Ctrl-C. It may contain passwords of the device.`,
		Example: `  pentrough record 10.0.0.7 > bug.jsonl
  pentrough record 123456789012345 --new --for 10m > login.jsonl`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return advise(errors.New("record needs one device"), "for example: pentrough record 10.0.0.7; pentrough devices lists the devices")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			v.device = args[0]
			if v.lasting < 0 || v.count < 0 {
				return advise(errors.New("--for and --count can't be negative"), "leave them out to record until the connection ends")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return v.run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&v.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	f.StringVar(&v.transport, "transport", "", "the transport of the device, if several have devices")
	f.BoolVar(&v.next, "new", false, "begin with the next connection, even if the device is online")
	f.DurationVar(&v.lasting, "for", 0, "stop this long after the recording has begun (default: at the end of the connection)")
	f.IntVarP(&v.count, "count", "n", 0, "stop after this many lines with bytes (default: never)")
	return cmd
}

// run prints the recording.
func (v *recordVerb) run(ctx context.Context, out, log io.Writer) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	query := url.Values{"device": {v.device}, "next": {strconv.FormatBool(v.next)}}
	if v.transport != "" {
		query.Set("transport", v.transport)
	}
	act := "recording " + printable.Text(v.device)
	lines, err := openStream(ctx, log, v.admin, "api/v1/record", query, act, "pentrough devices lists the devices and their transports")
	if err != nil {
		return err
	}
	defer lines.Close()
	fmt.Fprintf(log, "waiting for a connection of %s\n", printable.Text(v.device))
	count := 0
	for lines.Scan() {
		var l recording.Line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return advise(fmt.Errorf("%s: reading a line: %w", act, err), "check that --admin names a host's admin listener")
		}
		if _, err := fmt.Fprintf(out, "%s\n", lines.Bytes()); err != nil {
			return fmt.Errorf("writing the recording: %w", err)
		}
		switch {
		case l.Connection != nil:
			fmt.Fprintf(log, "recording %s at %s%s\n", printable.Text(l.Device), printable.Text(l.RemoteAddr), beginning(l.Connection))
			if v.lasting > 0 {
				time.AfterFunc(v.lasting, end)
			}
		case l.Error != "":
			return advise(fmt.Errorf("%s: the host ended the recording after %d lines: %s", act, count, l.Error), "record again; write the recording to a disk that is fast enough")
		case l.Ended != "":
			fmt.Fprintf(log, "the connection has ended (%s); %d lines\n", printable.Text(l.Ended), count)
			return nil
		default:
			if count++; count == v.count {
				return nil
			}
		}
	}
	if ctx.Err() != nil {
		fmt.Fprintf(log, "stopped; %d lines\n", count)
		return nil
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	return advise(fmt.Errorf("%s: the host ended the recording", act), "try again when the host runs; a host with too many taps and recordings ends the one that has been idle longest")
}

// beginning says whether a recording lacks the beginning of its connection.
func beginning(c *recording.Connection) string {
	if c.Whole {
		return ", from its first byte"
	}
	return ", which had begun before; --new waits for the next connection"
}
