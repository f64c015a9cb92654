package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/cmd/pentrough/internal/scenario"
	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/internal/inventory"
	"github.com/pentrough/pentrough/internal/newfile"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/router"
)

// tester is one call of pentrough test.
type tester struct {
	file    string
	tests   []string // files of tests
	only    string
	format  string
	junit   string
	verbose bool
	timeout time.Duration

	out io.Writer
}

func newTest() *cobra.Command {
	v := &tester{}
	cmd := &cobra.Command{
		Use:   "test -c FILE [FILE...]",
		Short: "Run the [[test]] tables of a configuration",
		Long: `Run the [[test]] tables of one or more configurations. In a test, messages come in, devices answer
and time passes. The test compares the messages that come out with the expected ones.

A test takes milliseconds and needs no broker, device or network. It runs the real pipelines,
middleware and handlers, with fake transports and a virtual clock.

Exit codes: 0 all tests passed, 1 a test failed or there was no test.`,
		Example: `  pentrough test -c gateway.toml
  pentrough test -c gateway.toml --tests gateway.test.toml --run offline
  pentrough test -c gateway.toml --junit report.xml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			v.out = cmd.OutOrStdout()
			suites, err := v.suites(cmd, args)
			if err != nil {
				return err
			}
			bubble.Main(func(in bubble.In) int { return v.run(in, suites, cmd.ErrOrStderr()) })
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&v.file, "config", "c", "pentrough.toml", "the configuration")
	f.StringSliceVar(&v.tests, "tests", nil, "more files with [[test]] tables for the configuration; a name may be a pattern")
	f.StringVar(&v.only, "run", "", "only tests whose name matches this regular expression")
	f.StringVar(&v.format, "format", "table", "output format: table, junit or json")
	f.StringVar(&v.junit, "junit", "", "also write a JUnit report to this file")
	f.BoolVarP(&v.verbose, "verbose", "v", false, "for failed tests, show everything that the host logged")
	f.DurationVar(&v.timeout, "timeout", 10*time.Second, "the longest real time that one test may take")
	return cmd
}

// suite is a configuration with its tests.
type suite struct {
	file    string
	config  *configs.Config
	tests   []configs.Test
	results []scenario.Result
	took    time.Duration
}

// suites reads the configurations and chooses the tests to run.
func (v *tester) suites(cmd *cobra.Command, files []string) ([]*suite, error) {
	if _, ok := formats[v.format]; !ok {
		return nil, advise(fmt.Errorf("there is no format %q", v.format), "name one of table, junit, json")
	}
	only, err := regexp.Compile(v.only)
	if err != nil {
		return nil, advise(fmt.Errorf("reading --run: %w", err), "--run takes a regular expression; escape special characters: --run 'a\\.b'")
	}
	testFiles, err := v.files()
	if err != nil {
		return nil, err
	}
	if len(files) == 0 || cmd.Flags().Changed("config") {
		files = append([]string{v.file}, files...)
	}
	var suites []*suite
	all, picked := 0, 0
	for _, file := range files {
		c, _, err := loadWith(file, configs.Options{Tests: testFiles, Secrets: redact.SetOf(cmd.ErrOrStderr())})
		if err != nil {
			return nil, err
		}
		if err := checkInventory(c); err != nil {
			return nil, err
		}
		s := &suite{file: file, config: c}
		for _, t := range c.Tests {
			if only.MatchString(t.Name) {
				s.tests = append(s.tests, t)
			}
		}
		all, picked = all+len(c.Tests), picked+len(s.tests)
		suites = append(suites, s)
	}
	switch {
	case all == 0:
		return nil, advise(fmt.Errorf("%s has no [[test]] table", files[0]), "write one, or name a file of tests with --tests; docs/testing.md says how")
	case picked == 0:
		return nil, advise(fmt.Errorf("none of %d tests has a name that matches %q", all, v.only), "leave out --run to run all tests")
	}
	return suites, nil
}

// files reads the files of --tests.
func (v *tester) files() ([]configs.TestFile, error) {
	var paths []string
	for _, pattern := range v.tests {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			found = []string{pattern}
		}
		paths = append(paths, found...)
	}
	files, err := configs.ReadTests(paths)
	if err != nil {
		return nil, advise(err, "name a file with [[test]] tables with --tests")
	}
	return files, nil
}

// run runs all tests, prints the results, and returns the exit code.
func (v *tester) run(in bubble.In, suites []*suite, errOut io.Writer) int {
	failed := false
	for _, s := range suites {
		began := time.Now()
		for i := range s.tests {
			r := scenario.Run(&s.tests[i], s.setup(in, v))
			r.Redact(s.config.Router.Redact)
			failed = failed || r.Failure != nil
			s.results = append(s.results, r)
		}
		s.took = time.Since(began)
	}
	err := formats[v.format](v.out, suites)
	if v.junit != "" {
		err = errors.Join(err, writeReport(v.junit, suites))
	}
	if err != nil {
		fmt.Fprintln(errOut, "pentrough:", err)
		return exitFailed
	}
	if failed {
		return exitFailed
	}
	return 0
}

func writeReport(name string, suites []*suite) error {
	err := newfile.Write(name, 0o666, func(w io.Writer) error { return printJUnit(w, suites) })
	if err != nil {
		return fileError("writing", name, err)
	}
	return nil
}

// setup returns the settings that the tests of the suite run with.
func (s *suite) setup(in bubble.In, v *tester) scenario.Setup {
	setup := scenario.Setup{Config: s.config, In: in, Timeout: v.timeout, Level: v.level()}
	if file := s.config.Inventory.File; file != "" {
		setup.Inventory = func(log *slog.Logger) (router.Inventory, error) { return inventory.Open(file, readInventory, log) }
	}
	return setup
}
