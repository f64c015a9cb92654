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
		Long: `Print the JSON Schema of the configuration, with every plugin of this build.

Editors with Taplo or Even Better TOML can then check and complete a configuration. Write this line
at its top:
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
