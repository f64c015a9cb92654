package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/conformance"
)

// checkedPage is the page with the rules that the checks test.
const checkedPage = "docs/process-protocol.md"

func newPluginCheck() *cobra.Command {
	var s conformance.Subject
	var config, message string
	cmd := &cobra.Command{
		Use:   "check [flags] -- COMMAND ARGUMENT...",
		Short: "Check that a program follows the protocol of process plugins",
		Long: `Check that a program follows the protocol of process plugins (` + checkedPage + `).
The command starts the program several times and talks to it like a host.

For each check that fails, the command prints the rule that the program broke and the lines that
both sides sent.

Exit codes: 0 all checks passed, 1 at least one failed.`,
		Example: `  pentrough plugin check --config config.toml --message '{"t":21}' -- ./my-plugin
  pentrough plugin check --echo -- python3 echo.py`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return nil
			}
			return advise(errors.New("check needs a program"), "name the program: pentrough plugin check -- ./my-plugin")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Command, s.Message = args, []byte(message)
			if _, err := exec.LookPath(args[0]); err != nil {
				return advise(fmt.Errorf("starting %s: %w", args[0], err), "name a program that this machine has: pentrough plugin check -- ./my-plugin")
			}
			if config != "" {
				text, err := os.ReadFile(config)
				if err != nil {
					return advise(fileError("reading", config, err), "name a file with the plugin's config: --config FILE")
				}
				if s.Config, err = configs.Settings(text); err != nil {
					return advise(fmt.Errorf("%s: %w", config, err), "the file has the handler's config: keys and values in TOML, or a JSON object")
				}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			checks, failed := 0, 0
			err := conformance.Run(ctx, s, func(r conformance.Result) {
				checks++
				if r.Failure != nil {
					failed++
				}
				printCheck(cmd.OutOrStdout(), r)
			})
			if errors.Is(err, conformance.ErrConfig) {
				return advise(err, "give a config with --config FILE: keys and values in TOML, or a JSON object")
			}
			if err != nil {
				return err
			}
			if failed > 0 {
				return advise(fmt.Errorf("%d of %d checks failed", failed, checks), "%s has the rules", checkedPage)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d checks passed\n", checks)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "a file with the plugin's config, in TOML or JSON")
	f.StringVar(&message, "message", "{}", "a payload that the plugin accepts")
	f.BoolVar(&s.Echo, "echo", false, "the program is the echo plugin of the protocol: check every feature of its SDK")
	f.DurationVar(&s.Patience, "timeout", 10*time.Second, "how long an answer may take")
	f.StringArrayVar(&s.Env, "env", nil, "a variable for the program's environment, NAME=VALUE; can be repeated")
	return cmd
}

// shownExchange is how many of the last lines of an exchange are printed.
const shownExchange = 30

// printCheck prints a line for a check, and the details if it failed.
func printCheck(out io.Writer, r conformance.Result) {
	switch {
	case r.Skipped != "":
		fmt.Fprintf(out, "%-13s  -     %s: %s\n", r.Name, r.About, r.Skipped)
	case r.Failure == nil:
		fmt.Fprintf(out, "%-13s  PASS  %s\n", r.Name, r.About)
	default:
		fmt.Fprintf(out, "%-13s  FAIL  %s\n    %s\n    the page: %s\n", r.Name, r.About, r.Failure.What, r.Failure.Rule)
		said := r.Failure.Exchange
		if more := len(said) - shownExchange; more > 0 {
			fmt.Fprintf(out, "    (%d earlier lines)\n", more)
			said = said[more:]
		}
		for _, line := range said {
			fmt.Fprintf(out, "    %s\n", line)
		}
	}
}
