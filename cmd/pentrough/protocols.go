package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/spelling"
)

func newProtocols() *cobra.Command {
	return &cobra.Command{
		Use:   "protocols [NAME]",
		Short: "List the ready-made device protocols, or print one as TOML",
		Long: `List the ready-made device protocols, or print one as TOML.

A configuration names a protocol: protocol = "gps103". To change a protocol, print it into your
configuration. A [protocol.NAME] table of the file replaces the ready-made one.`,
		Example: `  pentrough protocols
  pentrough protocols gps103 >> pentrough.toml`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if len(args) == 0 {
				for _, p := range configs.Protocols() {
					names = append(names, cobra.CompletionWithDesc(p.Name, p.Devices))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return showProtocol(cmd.OutOrStdout(), args[0])
			}
			for _, p := range configs.Protocols() {
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s\n", p.Name, p.Devices)
			}
			return nil
		},
	}
}

// showProtocol prints a ready-made protocol as TOML.
func showProtocol(out io.Writer, name string) error {
	var names []string
	for _, p := range configs.Protocols() {
		if p.Name == name {
			fmt.Fprint(out, p.Text)
			return nil
		}
		names = append(names, p.Name)
	}
	next := "pentrough protocols lists all protocols"
	if meant := spelling.Nearest(name, names); meant != "" {
		next = fmt.Sprintf("did you mean %q? ", meant) + next
	}
	return advise(fmt.Errorf("there is no ready-made protocol %q", name), "%s", next)
}
