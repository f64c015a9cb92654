package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pentrough/pentrough/configs"
)

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Long: `Print the JSON Schema of the configuration with every plugin of this build.

Editors that know Taplo or Even Better TOML complete and check a file that begins with
    #:schema ./pentrough.schema.json`,
		Example: "  pentrough schema > pentrough.schema.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := configs.Schema(nil)
			if err != nil {
				return fmt.Errorf("making the schema: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", bytes.TrimSpace(schema))
			return err
		},
	}
}
