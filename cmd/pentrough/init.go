package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/newfile"
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
			if err := write(out, force, text); err != nil {
				return unwritableError(out, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), `wrote %[1]s
  next: edit it, then check it with
        pentrough validate -c %[1]s
        for completion and checks in your editor, write its schema to the same folder:
        pentrough schema > pentrough.schema.json
`, out)
			return nil
		},
	}
	cmd.Flags().StringVar(&example, "example", strings.TrimSuffix(configs.Commands, ".toml"), "the example to write: commands, quickstart or original")
	cmd.Flags().StringVarP(&out, "output", "o", "pentrough.toml", "file to write; - writes to standard output")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite an existing file")
	return cmd
}

// write creates a file. With force it replaces an existing file and keeps its permissions.
func write(name string, force bool, text []byte) error {
	if force {
		mode := fs.FileMode(0o644)
		if info, err := os.Stat(name); err == nil {
			mode = info.Mode().Perm()
		}
		err := newfile.Write(name, mode, func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		})
		if err != nil {
			return fileError("writing", name, err)
		}
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fileError("creating", name, err)
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(fileError("writing", name, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fileError("writing", name, err)
	}
	return nil
}

// unwritableError returns the error of a file that can't be written, with what to do next.
func unwritableError(name string, err error) error {
	info, statErr := os.Stat(name)
	switch {
	case statErr == nil && info.IsDir():
		return advise(fmt.Errorf("%s is a folder", name), "name a file in it: -o %s", filepath.Join(name, "pentrough.toml"))
	case errors.Is(err, fs.ErrExist):
		return advise(fmt.Errorf("%s exists already", name), "name another file with -o, or overwrite it with --force")
	case errors.Is(err, fs.ErrNotExist):
		return advise(fmt.Errorf("creating %s: there is no folder %s", name, filepath.Dir(name)), "create it first (mkdir -p %s), or name another file with -o", filepath.Dir(name))
	default:
		return advise(err, "with -o, name a file in a folder that you may write to; -o - prints the configuration instead")
	}
}
