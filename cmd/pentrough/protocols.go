package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/plugin"
)

// protocolKind is the kind of the plugins that are protocols.
const protocolKind = "protocol"

func newProtocols() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "protocols [NAME]",
		Short: "List the protocols of devices, or print a ready-made one",
		Long: `List the protocols that the setting protocol can name: the ready-made ones, those that
are plugins in Go, and with -c those of a configuration.

With NAME, print a ready-made protocol. To change it, copy the text to your configuration. The copy
takes precedence over the ready-made protocol. If NAME is a plugin, print its settings.`,
		Example: `  pentrough protocols
  pentrough protocols -c gateway.toml
  pentrough protocols gps103 >> gateway.toml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 && file != "" {
				return advise(errors.New("-c only lists the protocols of a file"), "leave out -c or the name")
			}
			return cobra.MaximumNArgs(1)(nil, args)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if len(args) == 0 {
				for _, e := range usableProtocols() {
					names = append(names, cobra.CompletionWithDesc(e.name, e.summary))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return showProtocol(cmd.OutOrStdout(), args[0])
			}
			all := usableProtocols()
			if file != "" {
				own, err := protocolsOf(file)
				if err != nil {
					return err
				}
				all = slices.DeleteFunc(all, func(e listEntry) bool {
					return slices.ContainsFunc(own, func(o listEntry) bool { return o.name == e.name })
				})
				all = append(own, all...)
			}
			printEntries(cmd.OutOrStdout(), all)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "also list the protocols of this configuration")
	return cmd
}

// usableProtocols returns the protocols that every configuration can name. A plugin takes
// precedence over a ready-made protocol.
func usableProtocols() []listEntry {
	var plugins []listEntry
	for _, p := range pages() {
		if p.Kind == protocolKind {
			plugins = append(plugins, listEntry{"plugin", p.Name, p.Summary})
		}
	}
	var all []listEntry
	for _, p := range configs.Protocols() {
		if _, ok := plugin.Registered().Page(protocolKind, p.Name); !ok {
			all = append(all, listEntry{"ready-made", p.Name, p.Devices})
		}
	}
	return append(all, plugins...)
}

// protocolsOf returns the protocols that a configuration defines.
func protocolsOf(file string) ([]listEntry, error) {
	tables, err := configs.Tables(file, protocolKind)
	if err != nil {
		return nil, configError(file, err)
	}
	var all []listEntry
	for _, t := range tables {
		all = append(all, listEntry{file, t.Name, fmt.Sprintf("in line %d", t.Position.Line)})
	}
	return all, nil
}

// readyMade returns the ready-made protocol of that name.
func readyMade(name string) (configs.Protocol, bool) {
	all := configs.Protocols()
	i := slices.IndexFunc(all, func(p configs.Protocol) bool { return p.Name == name })
	if i < 0 {
		return configs.Protocol{}, false
	}
	return all[i], true
}

// showProtocol prints the text of a ready-made protocol, or the page of a plugin.
func showProtocol(out io.Writer, name string) error {
	if page, ok := plugin.Registered().Page(protocolKind, name); ok {
		fmt.Fprint(out, page.Text())
		return nil
	}
	if p, ok := readyMade(name); ok {
		fmt.Fprint(out, p.Text)
		return nil
	}
	var names []string
	for _, e := range usableProtocols() {
		names = append(names, e.name)
	}
	return unknownName(fmt.Errorf("this build has no protocol %q", name), name, names, "pentrough protocols lists all protocols")
}
