package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
)

func newInit() *cobra.Command {
	var (
		out, example string
		force        bool
	)
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write an annotated configuration to start from",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := configs.Example(example + ".toml")
			if err != nil {
				return advise(err, "leave out --example, or name one of them without .toml")
			}
			if out == "-" {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
			if force {
				how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			}
			if err := write(out, how, text); errors.Is(err, fs.ErrExist) {
				return advise(fmt.Errorf("%s exists already", out), "name another file with -o, or overwrite it with --force")
			} else if err != nil {
				return advise(err, "name a file in a folder that you may write to with -o, or print it with -o -")
			}
			fmt.Fprintf(cmd.OutOrStdout(), `wrote %[1]s
  next: edit it, then check it with
        pentrough validate -c %[1]s
        for completion and checks in your editor, beside it:
        pentrough schema > pentrough.schema.json
`, out)
			return nil
		},
	}
	cmd.Flags().StringVar(&example, "example", strings.TrimSuffix(configs.Commands, ".toml"), "begin from this example: commands, quickstart or original")
	cmd.Flags().StringVarP(&out, "output", "o", "pentrough.toml", "file to write; - is standard output")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite an existing file")
	return cmd
}

func write(name string, how int, text []byte) error {
	f, err := os.OpenFile(name, how, 0o644)
	if err != nil {
		return fmt.Errorf("creating %w", err)
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(fmt.Errorf("writing %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing %w", err)
	}
	return nil
}
