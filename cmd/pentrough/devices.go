package main

import (
	"context"
	"encoding/json"
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
)

const (
	// devicesTimeout is how long a host may take to tell its devices.
	devicesTimeout = 10 * time.Second
	// fastestWatch is the shortest time between two looks.
	fastestWatch = 100 * time.Millisecond
)

// devicesVerb shows the devices of a running host.
type devicesVerb struct {
	admin string
	json  bool
	watch time.Duration
	choice

	target *url.URL // admin, read
}

func newDevices() *cobra.Command {
	v := devicesVerb{}
	cmd := &cobra.Command{
		Use:   "devices [PATTERN]",
		Short: "Show the devices of a running host",
		Long: `Show the devices that are connected to a running host or in its inventory.

PATTERN chooses them by name; * stands for any characters and ? for one. WAITING counts the commands
that aren't wholly written to the device yet, ASKED those whose answer is waited for.`,
		Example: `  pentrough devices
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
			var err error
			if v.target, err = webAddress(v.admin); err != nil {
				return advise(fmt.Errorf("reading --admin: %w", err), "give the address of a host's admin listener, such as 127.0.0.1:8222")
			}
			if cmd.Flags().Changed("watch") && v.watch < fastestWatch {
				return advise(fmt.Errorf("--watch %s is too often", v.watch), "give at least %s, such as --watch=2s", fastestWatch)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if v.watch > 0 {
				return v.follow(ctx, cmd.OutOrStdout())
			}
			fleet, err := v.fetch(ctx)
			if err != nil {
				return err
			}
			return v.print(cmd.OutOrStdout(), fleet)
		},
	}
	f := cmd.Flags()
	f.StringVar(&v.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	f.BoolVar(&v.json, "json", false, "print each device as a line of JSON")
	f.DurationVar(&v.watch, "watch", 0, "show them anew each time that this has passed")
	f.Lookup("watch").NoOptDefVal = "2s"
	v.flags(f)
	cmd.MarkFlagsMutuallyExclusive("online", "offline")
	cmd.MarkFlagsMutuallyExclusive("json", "watch")
	return cmd
}

// fetch asks the host.
func (v *devicesVerb) fetch(ctx context.Context) (*admin.Fleet, error) {
	ctx, cancel := context.WithTimeout(ctx, devicesTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, v.target.JoinPath("api/v1/devices").String(), nil)
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
		return nil, advise(fmt.Errorf("asking %s for its devices: %s", v.target.Host, reasonIn(body, resp.Status)), "see that --admin names a host's admin listener; a host that is older than this program can't tell")
	}
	var fleet admin.Fleet
	if err := json.Unmarshal(body, &fleet); err != nil {
		return nil, advise(fmt.Errorf("reading the devices: %w", err), "see that --admin names a host's admin listener")
	}
	return &fleet, nil
}

// print prints the chosen devices once.
func (v *devicesVerb) print(out io.Writer, fleet *admin.Fleet) error {
	chosen := v.choose(fleet.Devices)
	if v.json {
		lines := json.NewEncoder(out)
		for _, d := range chosen {
			if err := lines.Encode(d); err != nil {
				return err
			}
		}
		return nil
	}
	_, err := io.WriteString(out, v.table(fleet, chosen, 0))
	return err
}

// follow prints them again and again, on a terminal in one place, until ctx ends. A host that is away is waited for.
func (v *devicesVerb) follow(ctx context.Context, out io.Writer) error {
	tick := time.NewTicker(v.watch)
	defer tick.Stop()
	for {
		screen := screenOf(out)
		fleet, err := v.fetch(ctx)
		var text string
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			text = fmt.Sprintf("%s  %v\n", time.Now().Format(time.TimeOnly), err)
		default:
			text = fmt.Sprintf("%s  %s\n\n", plainText(fleet.Host), fleet.Time.Local().Format(time.TimeOnly)) + v.table(fleet, v.choose(fleet.Devices), screen.rows-watchHead)
		}
		if _, err := io.WriteString(out, screen.place(text)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
