package configs

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed *.toml
var examples embed.FS

// The examples: the one that runs without a file, the annotated one that new files begin from, and the contract of the original
// server.
const (
	Quickstart = "quickstart.toml"
	Commands   = "commands.toml"
	Original   = "original.toml"
)

// Example returns an example configuration by its name, such as [Quickstart].
func Example(name string) ([]byte, error) {
	data, err := examples.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("there is no example %q; there are %s", name, strings.Join([]string{Quickstart, Commands, Original}, ", "))
	}
	return data, nil
}
