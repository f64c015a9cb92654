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
		Short: "Write a working handler plugin to start from",
		Long: `Write a Go module to the folder NAME: a handler, its test, a README and a configuration to try it
with. They work without changes. This needs the go command.

With --python, write a handler in Python instead, and the SDK that it needs in one file. The host
runs such a handler as a process of its own.`,
		Example: `  pentrough plugin new handler door
  pentrough plugin new handler door --module example.com/fleet/door
  pentrough plugin new handler door --python`,
		Args:      cobra.MatchAll(cobra.ExactArgs(2), func(_ *cobra.Command, args []string) error { return isHandler(args[0]) }),
		ValidArgs: []string{"handler"},
		RunE: func(cmd *cobra.Command, args []string) error {
			h.Name = args[1]
			// A Python handler is a process, so its name can't clash with the name of another
			// plugin.
			if !python && handlerExists(h.Name) {
				return advise(fmt.Errorf("this program already has a handler %q, and a host can't have two", h.Name), "choose another name, such as: pentrough plugin new handler door")
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
	cmd.Flags().StringVar(&h.Module, "module", "", "path of the module (default: example.com/NAME)")
	cmd.Flags().BoolVar(&python, "python", false, "write the handler in Python; it runs as a process of its own")
	cmd.Flags().StringVar(&source, "pentrough", "", "write it for this host: a folder with its source, or a version\n(default: the source that this program was built from)")
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
	return advise(fmt.Errorf("new can't write a %q", kind), "write a handler with: pentrough plugin new handler NAME; CONTRIBUTING.md describes other plugins")
}
