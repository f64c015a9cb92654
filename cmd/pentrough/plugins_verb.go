package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/spelling"
)

//go:generate go run . plugins --markdown ../../docs/plugins

func newPlugins() *cobra.Command {
	var folder string
	cmd := &cobra.Command{
		Use:   "plugins [NAME]",
		Short: "List the plugins of this build, or one plugin's settings",
		Example: `  pentrough plugins
  pentrough plugins tcp`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if len(args) == 0 {
				for _, p := range pages() {
					names = append(names, cobra.CompletionWithDesc(p.Name, p.Kind+": "+p.Summary))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case folder != "":
				return writePages(folder)
			case len(args) == 1:
				return showPlugin(cmd.OutOrStdout(), args[0])
			default:
				listPlugins(cmd.OutOrStdout())
				return nil
			}
		},
	}
	cmd.Flags().StringVar(&folder, "markdown", "", "write a Markdown page for each plugin into this folder, instead of a list")
	return cmd
}

// pages returns a page for every plugin of this build, sorted by kind and name.
func pages() []plugin.Page {
	set := plugin.Registered()
	var all []plugin.Page
	for _, name := range set.Kinds() {
		kind, _ := set.Kind(name)
		for _, p := range kind.Names() {
			page, _ := set.Page(name, p)
			all = append(all, page)
		}
	}
	return all
}

func listPlugins(out io.Writer) {
	var all []listEntry
	for _, p := range pages() {
		all = append(all, listEntry{p.Kind, p.Name, p.Summary})
	}
	printEntries(out, all)
}

// listEntry is a line of a list of plugins.
type listEntry struct{ group, name, summary string }

// printEntries prints a list with the name of each group above it.
func printEntries(out io.Writer, all []listEntry) {
	group := ""
	for _, e := range all {
		if e.group != group {
			group = e.group
			fmt.Fprintln(out, group)
		}
		fmt.Fprintf(out, "  %-12s %s\n", e.name, e.summary)
	}
}

// showPlugin prints the pages of all plugins with that name: two kinds of plugins can share it.
func showPlugin(out io.Writer, name string) error {
	var names []string
	found := false
	for _, p := range pages() {
		names = append(names, p.Name)
		if p.Name == name {
			if found {
				fmt.Fprintln(out)
			}
			found = true
			fmt.Fprint(out, p.Text())
		}
	}
	if found {
		return nil
	}
	err := fmt.Errorf("this build has no plugin %q", name)
	if _, ok := readyMade(name); ok {
		return advise(err, "it is a ready-made protocol: pentrough protocols %s prints it", name)
	}
	return unknownName(err, name, names, "pentrough plugins lists all plugins")
}

// unknownName adds advice to the error of a name that isn't one of names.
func unknownName(err error, name string, names []string, next string) error {
	if meant := spelling.Nearest(name, names); meant != "" {
		next = fmt.Sprintf("did you mean %q? ", meant) + next
	}
	return advise(err, "%s", next)
}

// pageFile returns the file name of a plugin's page. It has the kind in it, because plugins of two
// kinds can share a name.
func pageFile(p plugin.Page) string { return p.Kind + "-" + p.Name + ".md" }

const pageHead = "<!-- Written by `make docs` from the plugin's configuration struct. -->\n\n"

// writePages writes a page for each plugin and an index, and removes the pages of plugins that are
// gone.
func writePages(folder string) error {
	old, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range old {
		errs = append(errs, os.Remove(file))
	}
	for name, text := range pageTexts() {
		errs = append(errs, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

// pageTexts returns the files of docs/plugins by name.
func pageTexts() map[string]string {
	files := map[string]string{}
	var index strings.Builder
	index.WriteString(pageHead + "# Plugins\n")
	kind := ""
	for _, p := range pages() {
		if p.Kind != kind {
			kind = p.Kind
			fmt.Fprintf(&index, "\n## %s\n\n", strings.ToUpper(kind[:1])+kind[1:])
		}
		fmt.Fprintf(&index, "- [%s](%s): %s\n", p.Name, pageFile(p), p.Summary)
		files[pageFile(p)] = pageHead + p.Markdown()
	}
	files["README.md"] = index.String()
	return files
}
