package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/listen"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/telemetry"
	"github.com/pentrough/pentrough/router"
)

func newValidate() *cobra.Command {
	var file string
	var strict bool
	cmd := &cobra.Command{
		Use:   "validate -c FILE",
		Short: "Check a configuration and list every problem",
		Long: `Check a configuration and list every problem, each with its line in the file. The command doesn't
use the network. If a pipeline has the handler "process", the command starts its program, lets it
check its config, and ends it. If the program isn't on this machine, a note says so.

Exit codes: 0 the configuration is right, 1 it has problems. With --strict, warnings count as
problems. Use that in CI, where nobody reads the output.`,
		Args: fileByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secrets := redact.SetOf(cmd.ErrOrStderr())
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			asked := &programs{ctx: ctx, errOut: cmd.ErrOrStderr()}
			c, warnings, err := loadWith(file, configs.Options{Secrets: secrets, CheckHandler: asked.check})
			if err != nil {
				return err
			}
			if err := checkInventory(c); err != nil {
				return err
			}
			if strict && len(warnings) > 0 {
				return advise(newFoundError(file, "warning", configs.Problems(warnings)), "correct it, or leave out --strict, so that warnings don't count as problems")
			}
			out := redact.NewWriter(cmd.OutOrStdout(), secrets)
			fmt.Fprintf(out, "%s: ok\n", file)
			summarize(out, c.Router.Pipelines)
			printWarnings(out, warnings)
			for _, note := range asked.notes {
				fmt.Fprintln(out, "note:", note)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "pentrough.toml", "the configuration")
	cmd.Flags().BoolVar(&strict, "strict", false, "count warnings as problems")
	return cmd
}

// programs starts the programs of process handlers so that they check their settings.
type programs struct {
	ctx    context.Context
	errOut io.Writer
	// notes say which settings couldn't be checked.
	notes []string
}

func (p *programs) check(host, pipeline string, handler handlers.Config) error {
	checker, ok := handler.(handlers.SettingsChecker)
	if !ok {
		return nil
	}
	log, err := telemetry.NewLogger(p.errOut, telemetry.Config{Level: slog.LevelInfo, Format: "text"})
	if err != nil {
		return err
	}
	err = checker.CheckSettings(p.ctx, handlers.Env{Pipeline: pipeline, Host: host, Logger: log, Now: time.Now, Registerer: prometheus.NewRegistry()})
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		p.notes = append(p.notes, fmt.Sprintf("pipeline %s: the settings of its program weren't checked: %v", pipeline, err))
		return nil
	}
	return err
}

func printWarnings(out io.Writer, warnings configs.Warnings) {
	for _, w := range warnings {
		fmt.Fprintf(out, "warning: %s%s\n", w, w.Excerpt)
	}
}

// foundError lists the problems or warnings of a file for people.
type foundError struct {
	file, kind string
	problems   configs.Problems
}

// newFoundError returns an error that lists problems or warnings.
func newFoundError(file, kind string, problems configs.Problems) error {
	return &foundError{file, kind, problems}
}

func (e *foundError) Error() string {
	count := "a " + e.kind
	if n := len(e.problems); n > 1 {
		count = fmt.Sprintf("%d %ss", n, e.kind)
	}
	return fmt.Sprintf("%s has %s\n%s", e.file, count, e.problems.Listing())
}

func (e *foundError) Unwrap() error { return e.problems }

// fileByFlag refuses arguments. Its error suggests -c, because the argument is probably a
// configuration.
func fileByFlag(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return advise(fmt.Errorf("unexpected argument %q: %s takes no arguments", args[0], cmd.Name()), "name a configuration with -c: %s -c %s", cmd.CommandPath(), args[0])
}

// unreadableError returns the error of a configuration that can't be read, with what to do next.
func unreadableError(file string, err error) error {
	err = fileError("reading", file, err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return advise(err, "name the configuration with -c, or write one with: pentrough init -o %s", file)
	case errors.Is(err, syscall.EISDIR):
		return advise(err, "name a file in that folder: -c %s", filepath.Join(file, "pentrough.toml"))
	default:
		return advise(err, "name a file that you may read with -c")
	}
}

// fileError returns an error that names the act and the file, without the name of the system call.
func fileError(act, name string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("%s %s: %w", act, name, err)
}

// load reads a configuration and adds its secrets to secrets. Its errors say what to do next.
func load(file string, secrets *redact.Set) (*configs.Config, configs.Warnings, error) {
	return loadWith(file, configs.Options{OpenFiles: listen.OpenFiles(), Secrets: secrets})
}

func loadWith(file string, o configs.Options) (*configs.Config, configs.Warnings, error) {
	c, warnings, err := configs.Load(file, o)
	if err == nil {
		return c, warnings, nil
	}
	return nil, nil, configError(file, err)
}

// configError returns the error of a configuration that can't be read or has problems, with what
// to do next.
func configError(file string, err error) error {
	problems, ok := errors.AsType[configs.Problems](err)
	if !ok {
		return unreadableError(file, err)
	}
	return advise(newFoundError(file, "problem", problems),
		"correct it and check again with: pentrough validate -c %s\npentrough plugins NAME lists a plugin's settings", file)
}

// summarize prints each pipeline as one line: source, middleware, handler, destination.
func summarize(out io.Writer, pipelines []router.Pipeline) {
	width := 0
	for _, p := range pipelines {
		width = max(width, len(p.Name))
	}
	for _, p := range pipelines {
		way := []string{string(p.From)}
		for _, m := range p.Middleware {
			way = append(way, m.Name)
		}
		way = append(way, p.Handler.Type)
		if p.To != "" {
			way = append(way, string(p.To))
		}
		fmt.Fprintf(out, "  %-*s  %s\n", width, p.Name, strings.Join(way, " -> "))
	}
}
