package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/scaffold"
)

func newPluginNew() *cobra.Command {
	var h scaffold.Handler
	var source string
	var python bool
	cmd := &cobra.Command{
		Use:   "new handler NAME",
		Short: "Write a module with a handler that works, to begin from",
		Long: `Write a folder NAME with a Go module: a handler, its test, a README and a configuration to try it with. All work as they are.
Needs the go command. With --python it is a folder with a handler in Python, which runs as a process of its own, and the SDK for that in one file.`,
		Example: `  pentrough plugin new handler door
  pentrough plugin new handler door --module example.com/fleet/door
  pentrough plugin new handler door --python`,
		Args:      cobra.MatchAll(cobra.ExactArgs(2), func(_ *cobra.Command, args []string) error { return isHandler(args[0]) }),
		ValidArgs: []string{"handler"},
		RunE: func(cmd *cobra.Command, args []string) error {
			h.Name = args[1]
			// A process has a name of its own, which no other plugin's can clash with.
			if !python && handlerExists(h.Name) {
				return advise(fmt.Errorf("this program has a handler %q already, and a host can't have two", h.Name), "choose another name, such as: pentrough plugin new handler door")
			}
			if python {
				return newPython(cmd.OutOrStdout(), scaffold.Python{Name: args[1]})
			}
			if h.Module == "" {
				h.Module = "example.com/" + h.Name
			}
			var err error
			if h.Host, err = findSource(cmd.Context(), source); err != nil {
				return err
			}
			if err := h.Write(h.Name); err != nil {
				return advise(err, "choose a name whose folder doesn't exist yet, such as: pentrough plugin new handler door")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n  next: cd %[1]s && go test ./...\n        pentrough build --with . -o host && ./host run -c %[2]s.toml\n",
				h.Name+string(filepath.Separator), h.Package())
			return nil
		},
	}
	cmd.Flags().StringVar(&h.Module, "module", "", "the module's path; default: example.com/NAME")
	cmd.Flags().BoolVar(&python, "python", false, "write it in Python, as a process of its own")
	cmd.Flags().StringVar(&source, "pentrough", "", "write it for this host: a folder with its source, or a version; default: the one that this program was built from")
	cmd.MarkFlagsMutuallyExclusive("python", "module")
	cmd.MarkFlagsMutuallyExclusive("python", "pentrough")
	return cmd
}

func handlerExists(name string) bool {
	kind, ok := plugin.Registered().Kind("handler")
	if !ok {
		return false
	}
	_, exists := kind.Lookup(name)
	return exists
}

func newPython(out io.Writer, p scaffold.Python) error {
	if err := p.Write(p.Name); err != nil {
		return advise(err, "choose a name whose folder doesn't exist yet, such as: pentrough plugin new handler door --python")
	}
	fmt.Fprintf(out, "wrote %s\n  next: cd %[1]s && python3 -m unittest\n        pentrough run -c %[2]s.toml\n", p.Name+string(filepath.Separator), p.PythonModule())
	return nil
}

func isHandler(kind string) error {
	if kind == "handler" {
		return nil
	}
	return advise(fmt.Errorf("there is no beginning for a %q", kind), "pentrough plugin new handler NAME; CONTRIBUTING.md says how other plugins are made")
}
