package scaffold

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/hostbuild"
)

var snippet = regexp.MustCompile("(?s)<!-- file: (\\S+) -->\n```\\w+\n(.*?)```\n")

// What the guides show stands in the files that they name: those of a new module, which a script
// of cmd/pentrough tests, builds and runs, those of an example, or of this repository.
func TestTheGuidesShowWhatIsTested(t *testing.T) {
	host, err := hostbuild.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	modules := t.TempDir()
	for kind, name := range map[string]string{"handler": "door", "protocol": "meter", "codec": "netstring", "middleware": "max-size"} {
		m := Module{Kind: kind, Name: name, Path: "example.com/" + name, Host: host}
		if err := m.Write(filepath.Join(modules, name)); err != nil {
			t.Fatal(err)
		}
	}
	others := t.TempDir()
	if err := (Python{Name: "door"}).Write(filepath.Join(others, "python")); err != nil {
		t.Fatal(err)
	}
	for guide, folders := range map[string][]string{
		"write-a-handler.md":  {filepath.Join(modules, "door"), others, host.Dir},
		"write-a-protocol.md": {modules},
		"use-your-broker.md":  {filepath.Join(host.Dir, "docs", "examples", "redis")},
	} {
		text, err := os.ReadFile(filepath.Join(host.Dir, "docs", guide))
		if err != nil {
			t.Fatal(err)
		}
		shown := snippet.FindAllStringSubmatch(string(text), -1)
		if len(shown) < 4 || len(shown) != strings.Count(string(text), "<!-- file: ") {
			t.Fatalf("%s shows %d files", guide, len(shown))
		}
		for _, s := range shown {
			if err := findText(s[2], s[1], folders); err != nil {
				t.Errorf("%s: %v", guide, err)
			}
		}
	}
}

// findText fails unless a text stands in a file, in the first folder that has one of that name.
func findText(text, file string, folders []string) error {
	for _, folder := range folders {
		content, err := os.ReadFile(filepath.Join(folder, file))
		switch {
		case err != nil:
			continue
		case strings.Contains(string(content), text):
			return nil
		}
		return fmt.Errorf("%s has no such text:\n%s", file, text)
	}
	return fmt.Errorf("there is no %s", file)
}
