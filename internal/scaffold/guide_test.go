package scaffold

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/hostbuild"
)

var snippet = regexp.MustCompile("(?s)<!-- file: (\\S+) -->\n```\\w+\n(.*?)```\n")

// What the guide shows stands in the files that it names: those of a new module, which a script of cmd/pentrough tests, builds and runs, or of this
// repository.
func TestTheGuideShowsWhatIsTested(t *testing.T) {
	host, err := hostbuild.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	module := filepath.Join(t.TempDir(), "door")
	if err := (Handler{Name: "door", Module: "example.com/door", Host: host}).Write(module); err != nil {
		t.Fatal(err)
	}
	others := t.TempDir()
	if err := (Python{Name: "door"}).Write(filepath.Join(others, "python")); err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile(filepath.Join(host.Dir, "docs", "write-a-handler.md"))
	if err != nil {
		t.Fatal(err)
	}
	shown := snippet.FindAllStringSubmatch(string(guide), -1)
	if len(shown) < 6 || len(shown) != strings.Count(string(guide), "<!-- file: ") {
		t.Fatalf("the guide shows %d files", len(shown))
	}
	for _, s := range shown {
		var text []byte
		var err error
		for _, folder := range []string{module, others, host.Dir} {
			if text, err = os.ReadFile(filepath.Join(folder, s[1])); err == nil {
				break
			}
		}
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(text), s[2]) {
			t.Errorf("%s has no such text:\n%s", s[1], s[2])
		}
	}
}
