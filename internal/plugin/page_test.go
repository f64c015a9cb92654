package plugin

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write what the tests got into their golden files")

func (*everything) Shape() {}

// TestPages compares both forms of a page, with every type of setting, with their golden files.
func TestPages(t *testing.T) {
	set := testSet()
	set.Register("shape", Info{
		Name: "everything", Summary: "Has a setting of every type", Description: "It is *only* for tests.",
		New: func() any { c := everythingDefaults; return &c },
	})
	page, ok := set.Page("shape", "everything")
	if !ok {
		t.Fatal("no page")
	}
	for file, got := range map[string]string{"page.md": page.Markdown(), "page.txt": page.Text()} {
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s:\n%s", file, diff)
		}
	}
	for _, missing := range [][2]string{{"shape", "square"}, {"colour", "red"}} {
		if _, ok := set.Page(missing[0], missing[1]); ok {
			t.Errorf("there is a page of %v", missing)
		}
	}
}

func TestTOML(t *testing.T) {
	for _, test := range []struct {
		v    any
		want string
	}{
		{"a", `"a"`}, {`say "x"`, `'say "x"'`}, {"a\\b", `'a\b'`}, {"it's \"x\"", `"it's \"x\""`}, {"a\r\n", `"a\r\n"`}, {"\x00\x1b", `"\u0000\u001b"`},
		{true, "true"}, {int64(5), "5"}, {2.0, "2.0"}, {0.5, "0.5"}, {nil, ""},
		{[]any{"a", int64(1)}, `["a", 1]`}, {map[string]any{"z": int64(1), "type": "line", "a b": "x"}, `{ type = "line", "a b" = "x", z = 1 }`}, {map[string]any{}, "{}"},
	} {
		if got := TOML(test.v); got != test.want {
			t.Errorf("TOML(%#v) = %s, want %s", test.v, got, test.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 5 * time.Minute: "5m", 2 * time.Hour: "2h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 3 * time.Millisecond: "3ms",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	word := strings.Repeat("word ", 19) + "word" // 99 columns
	for text, want := range map[string]string{
		word:                               word,
		word + " more":                     word + "\nmore",
		"- " + word:                        "- " + word[:94] + "\n  word",
		word + " - more":                   word + " -\nmore",
		"| " + word + word + " |":          "| " + word + word + " |",
		"```\n" + word + word + "\n```\nx": "```\n" + word + word + "\n```\nx",
		strings.Repeat("x", 120):           strings.Repeat("x", 120),
		"one\n\ntwo":                       "one\n\ntwo",
	} {
		if diff := cmp.Diff(want, wrap(text, "")); diff != "" {
			t.Error(diff)
		}
	}
	if got := wrap(word, "  "); got != "  "+word[:94]+"\n  word" {
		t.Errorf("with an indent: %q", got)
	}
}
