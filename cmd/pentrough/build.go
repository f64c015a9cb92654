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

// localPlugins are the modules that this build took from local folders, each with the hash of its files. A build with further plugins sets it.
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
		Short: "Build a host with further plugins",
		Long: `Build a host that has all plugins of this one and those of further Go packages, which register them when they are imported.

The versions of all modules that the host requires stay as they are. A plugin that needs a newer one is refused, unless --upgrade allows for it.
Needs the go command.`,
		Example: `  pentrough build --with ./door -o host
  pentrough build --with example.com/door@v1.2.0 --with example.com/meters/modbus -o host`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if len(with) == 0 {
				return advise(errors.New("build with what?"), "name a folder or a package: pentrough build --with ./door")
			}
			for _, text := range with {
				p, err := hostbuild.ParsePlugin(text)
				if err != nil {
					return advise(err, "name a folder with a Go package, or PACKAGE[@VERSION] as go get takes it")
				}
				o.Plugins = append(o.Plugins, p)
			}
			s, err := findSource(ctx, source)
			if err != nil {
				return err
			}
			if err := s.Build(ctx, o); err != nil {
				if _, ok := errors.AsType[*hostbuild.UpgradeError](err); ok {
					return advise(err, "--upgrade builds it with those; they were not tested with this host")
				}
				return advise(err, "it is built from %s; --pentrough names another folder or version", s.Dir)
			}
			path := o.Output
			if !filepath.IsAbs(path) {
				path = "." + string(filepath.Separator) + path
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s\n  next: %s version --plugins\n", o.Output, path)
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&with, "with", nil, "a package of plugins: a folder, or PACKAGE[@VERSION]; again for more")
	cmd.Flags().StringVarP(&o.Output, "output", "o", "pentrough-with-plugins", "file to write")
	cmd.Flags().StringVar(&source, "pentrough", "", "build this host: a folder with its source, or a version; default: "+fromCheckout)
	cmd.Flags().BoolVar(&o.Upgrade, "upgrade", false, "let plugins have newer versions of what the host requires")
	return cmd
}

// findSource returns the host's source, or says how to name it.
func findSource(ctx context.Context, want string) (hostbuild.Source, error) {
	s, err := hostbuild.Find(ctx, want)
	if err != nil {
		return s, advise(err, "name a folder with Pentrough's source, or a version: --pentrough v1.2.3")
	}
	return s, nil
}
