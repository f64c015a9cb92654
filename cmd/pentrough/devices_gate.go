package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/admin"
	"github.com/pentrough/pentrough/internal/printable"
)

// gateVerb has the flags of one call of kick, ban, unban or bans.
type gateVerb struct {
	admin     string
	transport string
	reason    string
	lasts     time.Duration
	json      bool
}

const exampleDevice = "for example: pentrough devices %s 10.0.0.7; pentrough devices lists the devices"

func (v *gateVerb) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&v.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	cmd.Flags().StringVar(&v.transport, "transport", "", "the transport of the device, if several have devices")
}

// oneDevice checks that there is one argument.
func oneDevice(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return advise(fmt.Errorf("%s needs one device", cmd.Name()), exampleDevice, cmd.Name())
	}
	return nil
}

func newKick() *cobra.Command {
	v := gateVerb{}
	cmd := &cobra.Command{
		Use:   "kick DEVICE",
		Short: "Close the connection of a device",
		Long: `Close the connection of a device to a running host. The device's event disconnected has the
reason kicked, and --reason as its detail. The device may connect again at once; to prevent that,
ban it.

Commands that wait for the device end as they do whenever a connection ends: with the result
offline, or the host holds them until the device connects again.`,
		Example: `  pentrough devices kick 10.0.0.7
  pentrough devices kick 123456789012345 --reason 'firmware update'`,
		Args: oneDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			var kicked admin.Kicked
			if err := v.call(cmd, http.MethodPost, "kick", args[0], nil, &kicked); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "closed the connection of %s at %s\n", printable.Text(kicked.Device), printable.Text(kicked.RemoteAddr))
			return err
		},
	}
	v.addFlags(cmd)
	cmd.Flags().StringVar(&v.reason, "reason", "", "the detail of the event")
	return cmd
}

func newBan() *cobra.Command {
	v := gateVerb{}
	cmd := &cobra.Command{
		Use:   "ban DEVICE",
		Short: "Close the connection of a device, and refuse it from then on",
		Long: `Ban a device at a running host: close its connection, and refuse every further one. The ban ends
after the time --for, or with unban. The device's event disconnected has the reason kicked. Its
detail is "banned: " and --reason, or only "banned". The device needn't be connected or known. A
new ban replaces an older one.

The host keeps its bans in its store, so they survive a restart. If the store is memory, the bans
end with the host. The command then prints a warning.`,
		Example: `  pentrough devices ban 10.0.0.7
  pentrough devices ban 123456789012345 --for 24h --reason 'sends nonsense, ticket 4711'`,
		Args: oneDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			if cmd.Flags().Changed("for") {
				if v.lasts <= 0 {
					return advise(fmt.Errorf("--for %s isn't above 0", v.lasts), "leave it out for a ban without an end, or give a time such as 90m or 24h")
				}
				query.Set("for", v.lasts.String())
			}
			banned := admin.Ban{BanOutcome: &admin.BanOutcome{}}
			if err := v.call(cmd, http.MethodPost, "ban", args[0], query, &banned); err != nil {
				return err
			}
			return printBan(cmd.OutOrStdout(), cmd.ErrOrStderr(), banned)
		},
	}
	v.addFlags(cmd)
	cmd.Flags().StringVar(&v.reason, "reason", "", "the detail of the event; the verb bans shows it, too")
	cmd.Flags().DurationVar(&v.lasts, "for", 0, "how long, such as 90m or 24h (default: until unban)")
	return cmd
}

// printBan says what a ban did.
func printBan(out, log io.Writer, b admin.Ban) error {
	text := "banned " + printable.Text(b.Device)
	if b.Until != nil {
		text += " until " + localTime(*b.Until)
	}
	if b.Kicked {
		text += "; its connection is closed"
	}
	if b.Replaced {
		text += "; this replaces an older ban"
	}
	if !b.Stored {
		fmt.Fprintf(log, "warning: the ban ends when the host ends: %s\n", printable.Text(b.Problem))
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

func newUnban() *cobra.Command {
	v := gateVerb{}
	cmd := &cobra.Command{
		Use:     "unban DEVICE",
		Short:   "End the ban of a device",
		Long:    `End the ban of a device at a running host. The device may connect again.`,
		Example: `  pentrough devices unban 10.0.0.7`,
		Args:    oneDevice,
		RunE: func(cmd *cobra.Command, args []string) error {
			var ban admin.Ban
			if err := v.call(cmd, http.MethodPost, "unban", args[0], nil, &ban); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s may connect again\n", printable.Text(ban.Device))
			return err
		},
	}
	v.addFlags(cmd)
	return cmd
}

func newBans() *cobra.Command {
	v := gateVerb{}
	cmd := &cobra.Command{
		Use:   "bans",
		Short: "List the banned devices",
		Long:  `List the devices that are banned at a running host.`,
		Example: `  pentrough devices bans
  pentrough devices bans --json | jq -r .device`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return advise(errors.New("bans takes no device"), "pentrough devices bans lists all bans")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list admin.BanList
			if err := v.call(cmd, http.MethodGet, "bans", "", nil, &list); err != nil {
				return err
			}
			return v.printBans(cmd.OutOrStdout(), list.Bans)
		},
	}
	cmd.Flags().StringVar(&v.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	cmd.Flags().BoolVar(&v.json, "json", false, "print each ban as a line of JSON")
	return cmd
}

// printBans prints the bans.
func (v *gateVerb) printBans(out io.Writer, bans []admin.Ban) error {
	if v.json {
		lines := json.NewEncoder(out)
		for _, b := range bans {
			if err := lines.Encode(b); err != nil {
				return err
			}
		}
		return nil
	}
	var b bytes.Buffer
	if len(bans) > 0 {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "DEVICE\tTRANSPORT\tSINCE\tUNTIL\tREASON")
		for _, ban := range bans {
			until := "unban"
			if ban.Until != nil {
				until = localTime(*ban.Until)
			}
			fmt.Fprintln(w, strings.Join([]string{printable.Text(ban.Device), ban.Transport, localTime(ban.Since), until, orDash(printable.Text(ban.Reason))}, "\t"))
		}
		_ = w.Flush() // into memory
	} else {
		fmt.Fprintln(&b, "no device is banned")
	}
	_, err := out.Write(b.Bytes())
	return err
}

// call calls a path of the admin listener below /api/v1/devices, and decodes its answer into said.
func (v *gateVerb) call(cmd *cobra.Command, method, verb, device string, query url.Values, said any) error {
	target, err := adminAddress(v.admin)
	if err != nil {
		return err
	}
	warnExposed(cmd.ErrOrStderr(), v.admin, "")
	act := "asking " + target.Host + " for its bans"
	if device != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("device", device)
		for key, value := range map[string]string{"transport": v.transport, "reason": v.reason} {
			if value != "" {
				query.Set(key, value)
			}
		}
		act = verb + " " + printable.Text(device)
	}
	return callAdmin(cmd.Context(), target, method, "api/v1/devices/"+verb, query, act, gateAdvice[verb], said)
}

// gateAdvice says what to do if the host refuses a verb.
var gateAdvice = map[string]string{
	"kick":  "pentrough devices shows which devices are connected to the host, and to which transport",
	"ban":   "pentrough devices lists the devices and their transports, and pentrough devices bans the bans",
	"unban": "pentrough devices bans lists the banned devices and their transports",
	"bans":  "check that --admin names a host's admin listener, and that the host isn't older than this program",
}

// adminAddress returns the address of the admin listener that --admin names.
func adminAddress(text string) (*url.URL, error) {
	target, err := webAddress(text)
	if err != nil {
		return nil, advise(fmt.Errorf("reading --admin: %w", err), "give the address of a host's admin listener, such as 127.0.0.1:8222")
	}
	return target, nil
}

// callAdmin calls the admin listener and decodes its answer into said. act says what the caller
// does. refused is the advice if the host refuses that.
func callAdmin(ctx context.Context, target *url.URL, method, path string, query url.Values, act, refused string, said any) error {
	ctx, cancel := context.WithTimeout(ctx, devicesTimeout)
	defer cancel()
	target = target.JoinPath(path)
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, target.String(), nil)
	if err != nil {
		return fmt.Errorf("making a request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return advise(err, "check that a host runs there (pentrough run), or name its [host] admin address with --admin")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: reading the answer: %w", act, err)
	}
	if resp.StatusCode != http.StatusOK {
		return advise(fmt.Errorf("%s: %s", act, reasonIn(body, resp.Status)), "%s", refused)
	}
	if err := json.Unmarshal(body, said); err != nil {
		return advise(fmt.Errorf("%s: reading the answer: %w", act, err), "check that --admin names a host's admin listener")
	}
	return nil
}
