package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/plugin"
)

func TestSubstitute(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"one": "secret\n", "two": "two\n\n", "crlf": "secret\r\n", "none": "", "cr": "x\r", "junk": "\xff", "nested": "${PORT}\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, maxSecretFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return "${file:" + filepath.Join(dir, name) + "}" }

	for source, want := range map[string]substitution{
		"":                     {},
		"plain $5 $$ {}":       {text: "plain $5 $$ {}"},
		"${PORT}":              {text: "5673", count: 1, whole: true},
		"a${PORT}":             {text: "a5673", count: 1},
		"${PORT}b":             {text: "5673b", count: 1},
		"${PORT}${ON}":         {text: "5673true", count: 2},
		"${EMPTY}":             {text: "", count: 1, whole: true},
		"${EMPTY:-x}":          {text: "x", count: 1, whole: true},
		"${NOT_SET:-}":         {text: "", count: 1, whole: true},
		"${NOT_SET:-a:-b}":     {text: "a:-b", count: 1, whole: true},
		"$${PORT}":             {text: "${PORT}"},
		"$$${PORT}":            {text: "$${PORT}"},
		"$${${PORT}$${":        {text: "${5673${", count: 1},
		"x}${PORT}}":           {text: "x}5673}", count: 1},
		file("one"):            {text: "secret", count: 1, whole: true, file: true},
		file("two"):            {text: "two\n", count: 1, whole: true, file: true},
		file("crlf"):           {text: "secret", count: 1, whole: true, file: true},
		file("none"):           {count: 1, whole: true, file: true},
		file("cr"):             {text: "x\r", count: 1, whole: true, file: true},
		file("nested"):         {text: "${PORT}", count: 1, whole: true, file: true},
		"p:" + file("one"):     {text: "p:secret", count: 1, file: true},
		file("one") + "${ON}":  {text: "secrettrue", count: 2, file: true},
		"${ON:-${not}":         {},
		"${1}":                 {},
		"${}":                  {},
		"${A-B}":               {},
		"${NOT_SET}":           {},
		"${PORT":               {},
		"${file:}":             {},
		"${file:relative/one}": {},
		file("missing"):        {},
		file("junk"):           {},
		file("large"):          {},
	} {
		got, err := substitute(source, testEnv, nil)
		if wrong := source != "" && want == (substitution{}); wrong != (err != nil) {
			t.Errorf("%q: %v", source, err)
		} else if !wrong && got != want {
			t.Errorf("%q: got %+v, want %+v", source, got, want)
		}
	}
}

func TestSubstituteTellsAllAtOnce(t *testing.T) {
	_, err := substitute("${NOT_SET} ${NEITHER} ${1} ${", testEnv, nil)
	if err == nil || len(unjoin(err)) != 4 {
		t.Errorf("want 4 errors, got %v", err)
	}
}

func TestSubstituteTree(t *testing.T) {
	s := substituter{lookup: testEnv}
	tree := map[string]any{
		"${PORT}": []any{"${PORT}", int64(1), map[string]any{"a": "$${x}"}},
		"tables":  []map[string]any{{"b": "${file:x}"}},
	}
	s.tree("", tree)
	list := tree["${PORT}"].([]any)
	if want := (plugin.Substituted{Text: "5673", Source: "${PORT}", Whole: true}); list[0] != want {
		t.Errorf("got %+v, want %+v: keys stay, values don't", list[0], want)
	}
	if got := list[2].(map[string]any)["a"]; got != "${x}" {
		t.Errorf("a literal became %v", got)
	}
	if len(s.problems) != 1 || s.problems[0].path != "tables[0].b" {
		t.Errorf("problems: %v", s.problems)
	}
}

// FuzzSubstitute: nothing panics; text in which every ${ is escaped comes back as it was; what has
// none stays.
func FuzzSubstitute(f *testing.F) {
	for _, seed := range []string{"", "${A}", "$${A}", "a${A:-b}c", "${file:/dev/null}", "$$$${", "${", "}${A}{"} {
		f.Add(seed, "value")
	}
	f.Fuzz(func(t *testing.T, source, value string) {
		lookup := func(string) (string, bool) { return value, true }
		got, err := substitute(strings.ReplaceAll(source, "${", "$${"), lookup, nil)
		if err != nil || got.text != source || got.count != 0 {
			t.Errorf("escaped %q came back as %+v, %v", source, got, err)
		}
		if strings.Contains(source, "${file:") {
			return
		}
		got, err = substitute(source, lookup, nil)
		if !strings.Contains(source, "${") && (err != nil || got.text != source) {
			t.Errorf("%q became %+v, %v", source, got, err)
		}
		if got.whole && (!strings.HasPrefix(source, "${") || !strings.HasSuffix(source, "}") || got.count != 1) {
			t.Errorf("%q counts as whole: %+v", source, got)
		}
	})
}

func TestSecretFilesLoseMarkAndOneLineEnd(t *testing.T) {
	for content, want := range map[string]string{
		"hush": "hush", "hush\n": "hush", "hush\r\n": "hush", "hush\n\n": "hush\n", "hush\r": "hush\r",
		"\ufeffhush\n": "hush", "\ufeff\ufeffhush": "\ufeffhush", "hu\ufeffsh": "hu\ufeffsh", "\ufeff": "", " hush ": " hush ",
	} {
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readSecret(file); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", content, got, err, want)
		}
	}
}
