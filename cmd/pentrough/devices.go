package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/printable"
	"github.com/pentrough/pentrough/internal/redact"
)

const (
	// devicesTimeout is how long a host may take to list its devices.
	devicesTimeout = 10 * time.Second
	// fastestWatch is the shortest interval of --watch.
	fastestWatch = 100 * time.Millisecond
)

// devicesVerb is one call of pentrough devices.
type devicesVerb struct {
	admin          string
	file, pipeline string
	json           bool
	watch          time.Duration
	choice

	// fetch gets the devices from the host or from the table.
	fetch func(ctx context.Context) (*fleet, error)
}

func newDevices() *cobra.Command {
	v := devicesVerb{}
	cmd := &cobra.Command{
		Use:   "devices [PATTERN]",
		Short: "Show the devices of a running host, or of a database table",
		Long: `Show the devices of a running host: those that are connected, and those in its inventory. With
-c FILE, show the devices of all hosts instead, from the table that the handler sql of that
configuration keeps. The verbs below close connections, ban devices, and make hashes of tokens.

PATTERN chooses devices by name: * stands for any characters and ? for one. The column WAITING
counts the commands that aren't written to the device yet. The column ASKED counts the requests
whose answer hasn't come yet. --wide adds when the device was last heard, the frames and bytes that
it sent (IN) and got (OUT) since it connected, and its last error.`,
		Example: `  pentrough devices
  pentrough devices -c status.toml --offline --sort seen
  pentrough devices '10.0.7.*' --offline
  pentrough devices --wide --sort heard
  pentrough devices --label site=north --sort waiting --watch
  pentrough devices --json | jq -r 'select(.online | not) | .device'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return advise(fmt.Errorf("devices takes one pattern, not %d", len(args)), "quote the pattern, so that the shell doesn't expand it: pentrough devices '10.0.*'")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				v.pattern = args[0]
			}
			if err := v.check(); err != nil {
				return err
			}
			if err := v.chooseSource(redact.SetOf(cmd.ErrOrStderr())); err != nil {
				return err
			}
			if v.file == "" {
				warnExposed(cmd.ErrOrStderr(), v.admin, "")
			}
			if cmd.Flags().Changed("watch") && v.watch < fastestWatch {
				return advise(fmt.Errorf("--watch %s is too short", v.watch), "give at least %s, such as --watch=2s", fastestWatch)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if v.watch > 0 {
				return v.watchDevices(ctx, cmd.OutOrStdout())
			}
			all, err := v.fetch(ctx)
			if err != nil {
				return err
			}
			return v.print(cmd.OutOrStdout(), all)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&v.file, "config", "c", "", "show the table of this configuration's handler sql instead of a host's devices")
	f.StringVar(&v.pipeline, "pipeline", "", "with -c: the pipeline with the handler sql, if the configuration has several tables")
	f.StringVar(&v.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	f.BoolVar(&v.json, "json", false, "print each device as a line of JSON")
	f.BoolVar(&v.wide, "wide", false, "show also when devices were heard, what they sent and got, and their last errors")
	f.DurationVar(&v.watch, "watch", 0, "show the devices again and again at this interval, until Ctrl-C")
	f.Lookup("watch").NoOptDefVal = "2s"
	v.addFlags(f)
	cmd.MarkFlagsMutuallyExclusive("online", "offline")
	cmd.MarkFlagsMutuallyExclusive("json", "watch")
	cmd.AddCommand(newKick(), newBan(), newUnban(), newBans(), newHashToken())
	for _, hosts := range []string{"admin", "transport", "label", "wide"} {
		cmd.MarkFlagsMutuallyExclusive("config", hosts)
	}
	return cmd
}

// chooseSource sets fetch: the host or the table that the flags name.
func (v *devicesVerb) chooseSource(secrets *redact.Set) error {
	if v.file != "" {
		return v.chooseTable(secrets)
	}
	target, err := adminAddress(v.admin)
	if err != nil {
		return err
	}
	if v.pipeline != "" {
		return advise(errors.New("--pipeline needs a table"), "name the configuration with -c")
	}
	if v.sort == bySeen {
		return advise(fmt.Errorf("--sort %s needs a table", bySeen), "sort the devices of a host by the time at which they connected or sent something: --sort since, --sort heard")
	}
	v.fetch = func(ctx context.Context) (*fleet, error) { return fetchDevices(ctx, target) }
	return nil
}

// fetchDevices gets the devices from a host.
func fetchDevices(ctx context.Context, target *url.URL) (*fleet, error) {
	var said admin.Fleet
	if err := callAdmin(ctx, target, http.MethodGet, "api/v1/devices", nil, "asking "+target.Host+" for its devices",
		"check that --admin names a host's admin listener, and that the host isn't older than this program", &said); err != nil {
		return nil, err
	}
	all := &fleet{source: said.Host, time: said.Time}
	for _, d := range said.Devices {
		all.devices = append(all.devices, listed{Device: d})
	}
	return all, nil
}

// print prints the chosen devices once.
func (v *devicesVerb) print(out io.Writer, all *fleet) error {
	chosen := v.chooseDevices(all.devices)
	if v.json {
		lines := json.NewEncoder(out)
		for _, d := range chosen {
			if err := lines.Encode(d.jsonValue()); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := io.WriteString(out, v.formatTable(all, chosen, 0))
	return err
}

// watchDevices prints the devices at each interval until ctx ends. On a terminal each table
// replaces the last one. If the host or the database fails, it prints the error and tries again.
func (v *devicesVerb) watchDevices(ctx context.Context, out io.Writer) error {
	tick := time.NewTicker(v.watch)
	defer tick.Stop()
	for {
		screen := screenOf(out)
		all, err := v.fetch(ctx)
		var text string
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			text = fmt.Sprintf("%s  %v\n", time.Now().Format(time.TimeOnly), err)
		default:
			text = fmt.Sprintf("%s  %s\n\n", printable.Text(all.source), all.time.Local().Format(time.TimeOnly)) + v.formatTable(all, v.chooseDevices(all.devices), screen.rows-watchHead)
		}
		if _, err := io.WriteString(printable.Below(out), screen.replaceScreen(text)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
