package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/router"
)

func newValidate() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "validate -c FILE",
		Short: "Check a configuration and list every problem",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, warnings, err := load(file)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s: ok\n", file)
			summarize(out, c.Router.Pipelines)
			for _, w := range warnings {
				fmt.Fprintf(out, "warning: %s\n", w)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "pentrough.toml", "the configuration")
	return cmd
}

// load reads a configuration, and says of an error what to do next.
func load(file string) (*configs.Config, configs.Warnings, error) {
	c, warnings, err := configs.Load(file, configs.Options{})
	if err == nil {
		return c, warnings, nil
	}
	problems, ok := errors.AsType[configs.Problems](err)
	if !ok {
		return nil, nil, advise(err, "name the configuration with -c, or write one with: pentrough init -o %s", file)
	}
	count := "a problem"
	if len(problems) > 1 {
		count = fmt.Sprintf("%d problems", len(problems))
	}
	return nil, nil, advise(fmt.Errorf("%s has %s\n%w", file, count, problems),
		"correct it and check again with: pentrough validate -c %s\npentrough plugins NAME lists a plugin's settings", file)
}

// summarize draws each pipeline in one line.
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
