package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/transports"
)

// listening is one tap of a topic, through a running host or directly at a broker.
type listening struct {
	admin string
	file  string
	json  bool
	count int
}

func newListen() *cobra.Command {
	l := listening{}
	cmd := &cobra.Command{
		Use:   "listen TRANSPORT:TOPIC",
		Short: "Show the messages of a topic, without consuming them",
		Long: `Show the messages that pass through a topic from now on, one line for each. The command consumes
nothing: every consumer still gets its messages.

By default the command gets the messages from the admin listener of a running host. With -c FILE it
connects to the broker that FILE names and reads from a queue of its own. Then no host needs to run.`,
		Example: `  pentrough listen devices:events
  pentrough listen broker:results --json | jq .payload
  pentrough listen -c gateway.toml broker:results`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return advise(errors.New("listen needs one topic"), "for example: pentrough listen devices:events")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ref := transports.TopicRef(args[0])
			if _, _, err := ref.Split(); err != nil {
				return advise(err, "for example: pentrough listen devices:events")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if l.file != "" {
				return l.tapBroker(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), ref)
			}
			return l.tapHost(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr(), ref)
		},
	}
	f := cmd.Flags()
	f.StringVar(&l.admin, "admin", "http://127.0.0.1:8222", "admin listener of the running host")
	f.StringVarP(&l.file, "config", "c", "", "tap the topic at the broker that this configuration names, instead of a running host")
	f.BoolVar(&l.json, "json", false, "print each message with its metadata as a line of JSON")
	f.IntVarP(&l.count, "count", "n", 0, "stop after this many messages (default: never)")
	cmd.MarkFlagsMutuallyExclusive("admin", "config")
	return cmd
}
