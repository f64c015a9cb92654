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
	// devicesTimeout is how long a host may take to tell its devices.
	devicesTimeout = 10 * time.Second
	// fastestWatch is the shortest time between two looks.
	fastestWatch = 100 * time.Millisecond
)

// devicesVerb shows the devices of a running host, or of a database's table.
type devicesVerb struct {
	admin          string
	file, pipeline string
	json           bool
	watch          time.Duration
	choice

	// fetch asks the host or reads the table.
	fetch func(ctx context.Context) (*fleet, error)
}

func newDevices() *cobra.Command {
	v := devicesVerb{}
	cmd := &cobra.Command{
		Use:   "devices [PATTERN]",
		Short: "Show the devices of a running host, or of a database's table",
		Long: `Show the devices that are connected to a running host or in its inventory. With -c FILE, show the
table that the handler sql of that configuration keeps, with the devices of all hosts.

PATTERN chooses them by name; * stands for any characters and ? for one. WAITING counts the commands
that aren't wholly written to the device yet, ASKED those whose answer is waited for.`,
		Example: `  pentrough devices
  pentrough devices -c status.toml --offline --sort seen
  pentrough devices '10.0.7.*' --offline
  pentrough devices --label site=north --sort waiting --watch
  pentrough devices --json | jq -r 'select(.online | not) | .device'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return advise(fmt.Errorf("devices takes one pattern, not %d", len(args)), "quote it, so that the shell leaves it alone: pentrough devices '10.0.*'")
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
			if err := v.choose(redact.SetOf(cmd.ErrOrStderr())); err != nil {
				return err
			}
			if v.file == "" {
				warnExposed(cmd.ErrOrStderr(), v.admin, "")
			}
			if cmd.Flags().Changed("watch") && v.watch < fastestWatch {
				return advise(fmt.Errorf("--watch %s is too often", v.watch), "give at least %s, such as --watch=2s", fastestWatch)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if v.watch > 0 {
				return v.follow(ctx, cmd.OutOrStdout())
			}
			all, err := v.fetch(ctx)
			if err != nil {
				return err
			}
			return v.print(cmd.OutOrStdout(), all)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&v.file, "config", "c", "", "show the table of this configuration's handler sql, instead of a host's devices")
	f.StringVar(&v.pipeline, "pipeline", "", "with -c: the pipeline whose handler it is, if there are several tables")
	f.StringVar(&v.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	f.BoolVar(&v.json, "json", false, "print each device as a line of JSON")
	f.DurationVar(&v.watch, "watch", 0, "show them anew each time that this has passed")
	f.Lookup("watch").NoOptDefVal = "2s"
	v.flags(f)
	cmd.MarkFlagsMutuallyExclusive("online", "offline")
	cmd.MarkFlagsMutuallyExclusive("json", "watch")
	for _, hosts := range []string{"admin", "transport", "label"} {
		cmd.MarkFlagsMutuallyExclusive("config", hosts)
	}
	return cmd
}

// choose finds out whom to ask.
func (v *devicesVerb) choose(secrets *redact.Set) error {
	if v.file != "" {
		return v.chooseTable(secrets)
	}
	target, err := webAddress(v.admin)
	if err != nil {
		return advise(fmt.Errorf("reading --admin: %w", err), "give the address of a host's admin listener, such as 127.0.0.1:8222")
	}
	if v.pipeline != "" {
		return advise(errors.New("--pipeline is of a table"), "name the configuration with -c")
	}
	if v.sort == bySeen {
		return advise(fmt.Errorf("--sort %s is of a table", bySeen), "a host knows when a device connected: --sort since")
	}
	v.fetch = func(ctx context.Context) (*fleet, error) { return ask(ctx, target) }
	return nil
}

// ask asks a host.
func ask(ctx context.Context, target *url.URL) (*fleet, error) {
	ctx, cancel := context.WithTimeout(ctx, devicesTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.JoinPath("api/v1/devices").String(), nil)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, advise(err, "check that a host runs there (pentrough run), or name its [host] admin address with --admin")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the devices: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, advise(fmt.Errorf("asking %s for its devices: %s", target.Host, reasonIn(body, resp.Status)), "see that --admin names a host's admin listener; a host that is older than this program can't tell")
	}
	var said admin.Fleet
	if err := json.Unmarshal(body, &said); err != nil {
		return nil, advise(fmt.Errorf("reading the devices: %w", err), "see that --admin names a host's admin listener")
	}
	all := &fleet{source: said.Host, time: said.Time}
	for _, d := range said.Devices {
		all.devices = append(all.devices, listed{Device: d})
	}
	return all, nil
}

// print prints the chosen devices once.
func (v *devicesVerb) print(out io.Writer, all *fleet) error {
	chosen := v.chosen(all.devices)
	if v.json {
		lines := json.NewEncoder(out)
		for _, d := range chosen {
			if err := lines.Encode(d.said()); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := io.WriteString(out, v.table(all, chosen, 0))
	return err
}

// follow prints them again and again, on a terminal in one place, until ctx ends. A host or a database that is away is waited for.
func (v *devicesVerb) follow(ctx context.Context, out io.Writer) error {
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
			text = fmt.Sprintf("%s  %s\n\n", printable.Text(all.source), all.time.Local().Format(time.TimeOnly)) + v.table(all, v.chosen(all.devices), screen.rows-watchHead)
		}
		if _, err := io.WriteString(printable.Below(out), screen.place(text)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
