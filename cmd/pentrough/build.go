package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/internal/hostbuild"
)

// localPlugins has the modules that this build took from local folders, with the hash of their
// files. The file that package hostbuild generates sets it.
var localPlugins map[string]string

func newBuild() *cobra.Command {
	var (
		with         []string
		source       string
		o            hostbuild.Options
		fromCheckout = "the checkout or the version that this program was built from"
	)
	cmd := &cobra.Command{
		Use:   "build --with MODULE[@VERSION] | FOLDER",
		Short: "Build a host with additional plugins",
		Long: `Build a host with the plugins of this one and with the plugins of other Go packages. Such a package
registers its plugins when it is imported. This needs the go command.

The build keeps the versions of all modules that the host requires. If a plugin needs a newer
version of one, the build fails; --upgrade allows the newer version.`,
		Example: `  pentrough build --with ./door -o host
  pentrough build --with example.com/door@v1.2.0 --with example.com/meters/modbus -o host`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if len(with) == 0 {
				return advise(errors.New("build needs at least one plugin"), "name a folder or a package: pentrough build --with ./door")
			}
			for _, text := range with {
				p, err := hostbuild.ParsePlugin(text)
				if err != nil {
					return advise(err, "name a folder with a Go package, or PACKAGE[@VERSION] as for go get")
				}
				o.Plugins = append(o.Plugins, p)
			}
			s, err := findSource(ctx, source)
			if err != nil {
				return err
			}
			if err := s.Build(ctx, o); err != nil {
				if _, ok := errors.AsType[*hostbuild.UpgradeError](err); ok {
					return advise(err, "--upgrade builds it with the newer versions, which were not tested with this host")
				}
				return advise(err, "the source of the host is %s; --pentrough names another folder or version", s.Dir)
			}
			path := o.Output
			if !filepath.IsAbs(path) {
				path = "." + string(filepath.Separator) + path
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n  next: %s version --plugins\n", o.Output, path)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&with, "with", nil, "a package with plugins: a folder, or PACKAGE[@VERSION]; can be repeated")
	cmd.Flags().StringVarP(&o.Output, "output", "o", "pentrough-with-plugins", "file to write")
	cmd.Flags().StringVar(&source, "pentrough", "", "the host to build: a folder with its source, or a version\n(default: "+fromCheckout+")")
	cmd.Flags().BoolVar(&o.Upgrade, "upgrade", false, "allow newer versions of modules that the host requires")
	return cmd
}

// findSource returns the host's source. Its error says how to name the source.
func findSource(ctx context.Context, want string) (hostbuild.Source, error) {
	s, err := hostbuild.Find(ctx, want)
	if err != nil {
		return s, advise(err, "name a folder with Pentrough's source, or a version: --pentrough v1.2.3")
	}
	return s, nil
}
