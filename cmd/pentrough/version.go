package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/plugin"
)

// version is set by the linker: -X main.version=v1.2.3. If it is empty, the version of the module
// or the commit is used.
var version string

func newVersion() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of Pentrough and Go, and of the plugins",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if _, err := fmt.Fprintf(out, "pentrough %s (%s, %s/%s)\n", versionName(), runtime.Version(), runtime.GOOS, runtime.GOARCH); err != nil || !all {
				return err
			}
			return listOrigins(out)
		},
	}
	cmd.Flags().BoolVar(&all, "plugins", false, "also list the plugins, each with its module, version and hash")
	return cmd
}

func versionName() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return s.Value[:min(len(s.Value), 12)]
		}
	}
	return info.Main.Version
}

// listOrigins prints the module that each plugin comes from.
func listOrigins(out io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KIND\tNAME\tMODULE\tVERSION\tHASH")
	set := plugin.Registered()
	for _, k := range set.Kinds() {
		kind, _ := set.Kind(k)
		for _, name := range kind.Names() {
			p, _ := kind.Lookup(name)
			o := originOf(p.Package(), info)
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", k, name, o.module, o.version, cmp.Or(o.hash, "-"))
		}
	}
	return table.Flush()
}

// origin is a module with its version and hash.
type origin struct{ module, version, hash string }

// originOf returns the module of a package. That is the module with the longest path that is a
// prefix of the package's path.
func originOf(pkg string, info *debug.BuildInfo) origin {
	o := origin{module: info.Main.Path, version: versionName(), hash: info.Main.Sum}
	longest := 0
	for _, m := range info.Deps {
		if len(m.Path) <= longest || pkg != m.Path && !strings.HasPrefix(pkg, m.Path+"/") {
			continue
		}
		longest = len(m.Path)
		o = origin{m.Path, m.Version, m.Sum}
		if hash, local := localPlugins[m.Path]; local {
			o.version, o.hash = "local", hash
		} else if m.Replace != nil {
			o = origin{m.Replace.Path, m.Replace.Version, m.Replace.Sum}
		}
	}
	return o
}
