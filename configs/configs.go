// Package configs reads configuration files. It parses the TOML, substitutes variables, decodes
// the settings of every plugin, and checks how all parts fit together. It returns all problems at
// once, each with its place in the file, before anything starts.
//
// Start with [Load]. Plugins define their own settings; this package defines the tables around
// them.
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

// maxFile is the largest size of a configuration, in bytes. A larger file is certainly something
// else.
const maxFile = 1 << 20

// Config is the content of a whole file.
type Config struct {
	Host      Host
	Store     Store
	Tracing   Tracing
	Inventory Inventory
	// Router has what a file can configure: Name, ShutdownTimeout, Transports and Pipelines. Its
	// Redact hides the secrets of the file.
	Router router.Config
	// Tests has the [[test]] tables. Those of the configuration itself come first.
	Tests []Test
}

// Host is the [host] table.
type Host struct {
	// Name stays the same over restarts.
	Name string
	// Admin is the address of the admin listener; "" turns it off.
	Admin string
	// AdminHosts are additional host names that requests to the admin listener may use.
	AdminHosts      []string
	ShutdownTimeout time.Duration
	Log             Log
}

// Log is the [host.log] table: what the host logs, and how.
type Log struct {
	Level slog.Level
	// Format is "text" or "json".
	Format string
}

// Store is the [store] table: where the host keeps the ledger.
type Store struct {
	// Type is "memory", "sqlite" or "postgres".
	Type string
	// Path is the file of a sqlite store.
	Path string
	// URL is the database of a postgres store.
	URL transports.Secret
}

// Tracing is the [tracing] table: where the host sends spans.
type Tracing struct {
	// Endpoint is the collector's base URL; "" turns tracing off.
	Endpoint string
	// Sample is the share of traces to record, from 0 to 1. It applies to traces that begin in the
	// host.
	Sample float64
	// Service is the service's name in the traces.
	Service string
	// Headers are sent to the collector.
	Headers map[string]transports.Secret
}

// Options says how to read a file. The zero value takes plugins and variables from the running
// process.
type Options struct {
	// Plugins are the plugins that a file may name; nil means all registered plugins.
	Plugins Plugins
	// LookupEnv looks up environment variables; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
	// Tests are more files with tests of the configuration.
	Tests []TestFile
	// CheckHandler checks the handler of each pipeline. It is called only if the file has no other
	// problems. Its error is a problem of the handler's settings. Nil means no check.
	CheckHandler func(host, pipeline string, handler handlers.Config) error
	// OpenFiles is how many files the process may have open. The connections of the transports
	// share this number. 0 means no limit.
	OpenFiles int
	// Secrets receives the secrets of the file, which must not be printed. It may be nil if the
	// caller prints only the problems.
	Secrets Secrets
}

// Secrets is a set of secrets. Only the commands of this module create one.
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

// Plugins is a set of plugins. Only the registry of this module creates one, for its own tests.
// All other callers use nil.
type Plugins interface {
	// Kinds returns the names of the kinds of plugins.
	Kinds() []string
}

// setOf returns the set behind p, or all registered plugins.
func setOf(p Plugins) *plugin.Set {
	switch set := p.(type) {
	case nil:
		return plugin.Registered()
	case *plugin.Set:
		return set
	default:
		panic(fmt.Sprintf("%T isn't a set of plugins of this module's registry", p))
	}
}

// Load reads the file at path. If something in the file is wrong, the error is of type [Problems].
func Load(path string, o Options) (*Config, Warnings, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, data, o)
}

// Parse reads a configuration. name is the name of the file in problems. The error is of type
// [Problems].
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
	b := &builder{decoder: plugin.Decoder{Set: setOf(o.Plugins), ReadyMade: readyMade(), Secrets: secrets}, unsubstituted: sub.problems}
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

// readTree parses the text of a file.
func readTree(name string, data []byte) (map[string]any, *positions, Problems) {
	if len(data) > maxFile {
		message := fmt.Sprintf("the file has %d bytes; allowed: up to %d", len(data), maxFile)
		return nil, nil, Problems{{File: name, Position: Position{1, 1}, Message: message}}
	}
	src := string(data)
	at := scan(src)
	if at.tooDeep != nil {
		message := fmt.Sprintf("nested too deeply; allowed: up to %d levels", maxDepth)
		return nil, nil, Problems{{File: name, Position: *at.tooDeep, Message: message}}
	}
	var tree map[string]any
	if _, err := decodeTOML(src, &tree); err != nil {
		return nil, nil, Problems(place(name, at, nil, []problem{at.syntaxProblem(err)}))
	}
	return tree, at, nil
}

// parseTests reads a file that has only tests of a configuration.
func parseTests(t TestFile, o Options, config *file, refs []plugin.Ref) ([]Test, Problems) {
	tree, at, problems := readTree(t.Name, t.Data)
	if problems != nil {
		return nil, problems
	}
	secrets := secretsOf(o.Secrets)
	sub := &substituter{lookup: o.LookupEnv, secrets: secrets}
	sub.tree("", tree)
	b := &builder{decoder: plugin.Decoder{Set: setOf(o.Plugins), ReadyMade: readyMade(), Secrets: secrets}, unsubstituted: sub.problems}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if key != testsSection {
			b.fail(plugin.Join("", key), "a file of tests can't have this key", "[["+testsSection+"]]", spelling.Nearest(key, []string{testsSection}))
		}
	}
	tests := b.tests(t.Name, at, tree, config, refs)
	return tests, Problems(place(t.Name, at, secrets, b.all()))
}
