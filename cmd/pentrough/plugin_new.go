package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/scaffold"
)

func newPluginNew() *cobra.Command {
	var m scaffold.Module
	var source string
	var python bool
	cmd := &cobra.Command{
		Use:   "new " + strings.Join(scaffold.Kinds, "|") + " NAME",
		Short: "Write a working plugin to start from",
		Long: `Write a Go module to the folder NAME. The module has one plugin: a handler, a protocol
or codec of devices, or a middleware. It also has a test, a README and a configuration to try the
plugin with. The module works without changes. This needs the go command.

With --python, write a handler in Python instead, and one file with the SDK that the handler needs.
The host runs such a handler as a process of its own.`,
		Example: `  pentrough plugin new handler door
  pentrough plugin new protocol meter
  pentrough plugin new codec frames --module example.com/fleet/frames
  pentrough plugin new handler door --python`,
		Args: cobra.MatchAll(cobra.ExactArgs(2), func(_ *cobra.Command, args []string) error { return isNewKind(args[0], python) }),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return scaffold.Kinds, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			m.Kind, m.Name = args[0], args[1]
			// A Python handler is a process, so its name can't clash with the name of another
			// plugin.
			if python {
				return newPython(cmd.OutOrStdout(), scaffold.Python{Name: m.Name})
			}
			if nameTaken(m.Kind, m.Name) {
				return advise(fmt.Errorf("this program already has a %s %q, and a host can't have two", m.Kind, m.Name), "choose another name: pentrough plugin new %s my-%s", m.Kind, m.Name)
			}
			if m.Path == "" {
				m.Path = "example.com/" + m.Name
			}
			var err error
			if m.Host, err = findSource(cmd.Context(), source); err != nil {
				return err
			}
			if err := m.Write(m.Name); err != nil {
				return advise(err, "choose a name whose folder doesn't exist yet, such as: pentrough plugin new %s my-%[1]s", m.Kind)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n  next: cd %[1]s && go test ./...\n        pentrough build --with . -o host && ./host run -c %[2]s.toml\n",
				m.Name+string(filepath.Separator), m.Package())
			return nil
		},
	}
	cmd.Flags().StringVar(&m.Path, "module", "", "path of the module (default: example.com/NAME)")
	cmd.Flags().BoolVar(&python, "python", false, "write the handler in Python; it runs as a process of its own")
	cmd.Flags().StringVar(&source, "pentrough", "", "write it for this host: a folder with its source, or a version\n(default: the source that this program was built from)")
	cmd.MarkFlagsMutuallyExclusive("python", "module")
	cmd.MarkFlagsMutuallyExclusive("python", "pentrough")
	return cmd
}

// nameTaken reports whether this program has a plugin or a ready-made protocol of that name.
func nameTaken(kind, name string) bool {
	_, registered := plugin.Registered().Page(kind, name)
	_, ready := readyMade(name)
	return registered || kind == protocolKind && ready
}

func newPython(out io.Writer, p scaffold.Python) error {
	if err := p.Write(p.Name); err != nil {
		return advise(err, "choose a name whose folder doesn't exist yet, such as: pentrough plugin new handler door --python")
	}
	fmt.Fprintf(out, "wrote %s\n  next: cd %[1]s && python3 -m unittest\n        pentrough run -c %[2]s.toml\n", p.Name+string(filepath.Separator), p.PythonModule())
	return nil
}

// isNewKind returns an error if new can't write a plugin of a kind.
func isNewKind(kind string, python bool) error {
	kinds := scaffold.Kinds
	if python {
		kinds = []string{"handler"}
	}
	if slices.Contains(kinds, kind) {
		return nil
	}
	return advise(fmt.Errorf("new can't write a %q", kind), "name one of %s: pentrough plugin new %s NAME; CONTRIBUTING.md describes other plugins",
		strings.Join(kinds, ", "), kinds[0])
}
