package configs

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.toml
var examples embed.FS

// The names of the examples. Quickstart runs if no file is named. Commands is annotated, and
// pentrough init writes it by default. Original has the interface of the original server.
const (
	Quickstart = "quickstart.toml"
	Commands   = "commands.toml"
	Original   = "original.toml"
)

// Example returns an example configuration by its name, such as [Quickstart].
func Example(name string) ([]byte, error) {
	data, err := examples.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("there is no example %q; the examples are %s", name, strings.Join([]string{Quickstart, Commands, Original}, ", "))
	}
	return data, nil
}
