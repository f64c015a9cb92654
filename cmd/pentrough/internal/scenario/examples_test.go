package scenario_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/cmd/pentrough/internal/scenario"
	"github.com/pentrough/pentrough/configs"
	"github.com/pentrough/pentrough/internal/bubble"
	"github.com/pentrough/pentrough/internal/testenv/await"
)

// root is the module's folder.
const root = "../../../.."

// TestExamples runs the tests of every example configuration, and of the guide's page.
func TestExamples(t *testing.T) {
	texts := map[string]string{"docs/testing.md": block(t, "docs/testing.md")}
	for _, pattern := range []string{"configs/*.toml", "docs/examples/*/pentrough.toml"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("there is no %s: %v", pattern, err)
		}
		for _, path := range paths {
			texts[path] = read(t, path)
		}
	}
	for name, text := range texts {
		t.Run(filepath.Base(name), func(t *testing.T) {
			config, warnings, err := configs.Parse(name, []byte(text), configs.Options{})
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%v %s", err, warnings)
			}
			if len(config.Tests) == 0 {
				t.Error("an example without a test")
			}
			setup := scenario.Setup{Config: config, In: bubble.Under(t), Timeout: await.Patience, Level: slog.LevelWarn}
			for i := range config.Tests {
				if r := scenario.Run(&config.Tests[i], setup); r.Failure != nil {
					t.Errorf("%s: %s\n%s", r.Test.Name, r.Failure.Message, r.Log)
				}
			}
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block is the first TOML of a page.
func block(t *testing.T, page string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, filepath.Join(root, page)), "```toml\n")
	text, _, whole := strings.Cut(rest, "```\n")
	if !ok || !whole {
		t.Fatalf("%s has no TOML", page)
	}
	return text
}
