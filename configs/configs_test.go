package configs

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what the tests got into their golden files")

// testEnv is the environment of all tests.
func testEnv(name string) (string, bool) {
	value, ok := map[string]string{
		"PORT": "5673", "WRONG_PORT": "hunter2", "ON": "true", "EMPTY": "", "LEVEL": "loud", "PASSWORD": "hunter2", "TOPIC": "brokr:x",
	}[name]
	return value, ok
}

// TestProblems reads every testdata/*.txtar: a configuration and all that must be said of it.
func TestProblems(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string]string{}
			for _, f := range archive.Files {
				files[f.Name] = string(f.Data)
			}
			config, warnings, err := Parse("pentrough.toml", []byte(files["pentrough.toml"]), Options{Plugins: fakePlugins(), LookupEnv: testEnv})
			if (err == nil) != (config != nil) {
				t.Errorf("a configuration and an error: %v, %v", config, err)
			}
			got := map[string]string{"pentrough.toml": files["pentrough.toml"]}
			if err != nil {
				got["problems"] = err.Error() + "\n"
			}
			if len(warnings) > 0 {
				got["warnings"] = warnings.String() + "\n"
			}
			if *update {
				archive.Files = archive.Files[:0]
				for _, name := range []string{"pentrough.toml", "problems", "warnings"} {
					if text, ok := got[name]; ok {
						archive.Files = append(archive.Files, txtar.File{Name: name, Data: []byte(text)})
					}
				}
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(files, got); diff != "" {
				t.Error(diff)
			}
			for _, text := range []string{got["problems"], got["warnings"]} {
				if strings.Contains(text, "hunter2") {
					t.Error("a secret is printed")
				}
			}
		})
	}
}
