// Package configs turns a configuration file into what the host runs: it reads the TOML once, substitutes variables, decodes every plugin's
// settings, and holds everything against everything else before anything starts. Whatever is wrong is told at once, each with its place.
//
// Start with [Load]. The settings themselves belong to the plugins; this package knows the tables around them.
package configs

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/plugin"
	"github.com/pentrough/pentrough/internal/redact"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/router"
	"github.com/pentrough/pentrough/transports"
)

// maxFile is the size of a file that is certainly no configuration.
const maxFile = 1 << 20

// Config is a whole file.
type Config struct {
	Host      Host
	Store     Store
	Tracing   Tracing
	Inventory Inventory
	// Router has the parts that a file can say: Name, ShutdownTimeout, Transports, Pipelines, and
	// Redact for the file's secrets.
	Router router.Config
	// Tests are the [[test]] tables, those of the file first.
	Tests []Test
}

// Host is the [host] table.
type Host struct {
	// Name is stable over restarts.
	Name string
	// Admin is the address of the admin listener; "" is none.
	Admin string
	// AdminHosts are further host names by which it may be called.
	AdminHosts      []string
	ShutdownTimeout time.Duration
	Log             Log
}

// Log says how the host logs.
type Log struct {
	Level slog.Level
	// Format is "text" or "json".
	Format string
}

// Store is the [store] table: where the ledger is kept.
type Store struct {
	// Type is "memory", "sqlite" or "postgres".
	Type string
	// Path is a sqlite store's file.
	Path string
	// URL is a postgres store's database.
	URL transports.Secret
}

// Tracing is the [tracing] table: where spans go.
type Tracing struct {
	// Endpoint is the collector's base URL; "" is none, and nothing is traced.
	Endpoint string
	// Sample is the share of traces that are recorded among those that begin here.
	Sample float64
	// Service is the service's name in the traces.
	Service string
	// Headers are for the collector.
	Headers map[string]transports.Secret
}

// Options are what a file is read with. The zero value is the running process.
type Options struct {
	// Plugins is what can be named; nil is everything registered.
	Plugins Plugins
	// LookupEnv finds variables; nil is os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Tests are files of tests that belong to the configuration.
	Tests []TestFile
	// CheckHandler is called for the handler of each pipeline if nothing else is wrong. Its error is
	// a problem of the handler's settings. Nil checks no handler.
	CheckHandler func(host, pipeline string, handler handlers.Config) error
	// OpenFiles is how many files the process may have open. The transports' connections share that
	// number. 0 is no limit.
	OpenFiles int
	// Secrets learns what must not be printed; nil if the caller prints nothing but the problems.
	Secrets Secrets
}

// Secrets is a set of secrets. Only this module's commands make them.
type Secrets interface {
	// Text returns a text without the secrets.
	Text(text string) string
}

// secretsOf returns the set behind s, or a new one.
func secretsOf(s Secrets) *redact.Set {
	if set, ok := s.(*redact.Set); ok && set != nil {
		return set
	}
	return new(redact.Set)
}

// Plugins is a set of plugins. Only the registry of this module makes them, for its own tests; everybody else leaves it nil.
type Plugins interface {
	// Kinds returns the names of the kinds of plugins.
	Kinds() []string
}

// setOf returns the registry's set behind p, or all that is registered.
func setOf(p Plugins) *plugin.Set {
	switch set := p.(type) {
	case nil:
		return plugin.Registered()
	case *plugin.Set:
		return set
	default:
		panic(fmt.Sprintf("%T is no set of plugins of this module's registry", p))
	}
}

// Load reads the file at path. An error that is about what the file says is of type [Problems].
func Load(path string, o Options) (*Config, Warnings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data, o)
}

// Parse reads a configuration; name stands for the file in problems. The error is of type [Problems].
func Parse(name string, data []byte, o Options) (*Config, Warnings, error) {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	tree, at, problems := readTree(name, data)
	if problems != nil {
		return nil, nil, problems
	}
	secrets := secretsOf(o.Secrets)
	sub := &substituter{lookup: o.LookupEnv, secrets: secrets}
	sub.tree("", tree)
	b := &builder{decoder: plugin.Decoder{Set: setOf(o.Plugins), Secrets: secrets}, unsubstituted: sub.problems}
	config := b.file(tree)
	check(b, config)
	b.risks(tree, config)
	b.shares(config, o.OpenFiles)
	refs := b.decoder.References
	tests := b.tests(name, at, tree, config, refs)
	if o.CheckHandler != nil && len(b.all()) == 0 {
		b.askHandlers(config, o.CheckHandler)
	}

	warnings := Warnings(place(name, at, secrets, b.warnings))
	all := Problems(place(name, at, secrets, b.all()))
	for _, file := range o.Tests {
		more, problems := parseTests(file, o, config, refs)
		tests, all = append(tests, more...), append(all, problems...)
	}
	if len(all) > 0 {
		return nil, warnings, all
	}
	out := config.finish()
	out.Tests, out.Router.Redact = tests, secrets.Text
	return out, warnings, nil
}

// readTree reads the text of a file.
func readTree(name string, data []byte) (map[string]any, *positions, Problems) {
	if len(data) > maxFile {
		message := fmt.Sprintf("the file has %d bytes; allowed: up to %d", len(data), maxFile)
		return nil, nil, Problems{{File: name, Position: Position{1, 1}, Message: message}}
	}
	src := string(data)
	at := scan(src)
	if at.tooDeep != nil {
		message := fmt.Sprintf("nested too deep; allowed: up to %d levels", maxDepth)
		return nil, nil, Problems{{File: name, Position: *at.tooDeep, Message: message}}
	}
	var tree map[string]any
	if _, err := decodeTOML(src, &tree); err != nil {
		return nil, nil, Problems(place(name, at, nil, []problem{at.syntaxProblem(err)}))
	}
	return tree, at, nil
}

// parseTests reads a file that has nothing but tests of a configuration.
func parseTests(t TestFile, o Options, config *file, refs []plugin.Ref) ([]Test, Problems) {
	tree, at, problems := readTree(t.Name, t.Data)
	if problems != nil {
		return nil, problems
	}
	secrets := secretsOf(o.Secrets)
	sub := &substituter{lookup: o.LookupEnv, secrets: secrets}
	sub.tree("", tree)
	b := &builder{decoder: plugin.Decoder{Set: setOf(o.Plugins), Secrets: secrets}, unsubstituted: sub.problems}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if key != testsSection {
			b.fail(plugin.Join("", key), "not a part of a file of tests", "[["+testsSection+"]]", spelling.Nearest(key, []string{testsSection}))
		}
	}
	tests := b.tests(t.Name, at, tree, config, refs)
	return tests, Problems(place(t.Name, at, secrets, b.all()))
}
