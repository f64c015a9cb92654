package main

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pentrough/pentrough/internal/plugin"
)

func TestPagesAreCurrent(t *testing.T) {
	folder := filepath.Join("..", "..", "docs", "plugins")
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		written[e.Name()] = string(text)
	}
	if diff := cmp.Diff(written, pageTexts()); diff != "" {
		t.Errorf("docs/plugins is not current; run make docs (-is +should be):\n%s", diff)
	}
}

func TestWritePagesReplacesWhatIsThere(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "handler-gone.md"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writePages(folder); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got[e.Name()] = true
	}
	want := map[string]bool{}
	for name := range maps.Keys(pageTexts()) {
		want[name] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A setting without a sentence can't be understood from its page or from an error.
func TestEverySettingIsDescribed(t *testing.T) {
	var check func(t *testing.T, at string, fields []plugin.Field)
	check = func(t *testing.T, at string, fields []plugin.Field) {
		for _, f := range fields {
			if f.Doc == "" {
				t.Errorf("%s.%s has no doc tag", at, f.Key)
			}
			inner := f.Type
			for inner.Elem != nil {
				inner = *inner.Elem
			}
			check(t, at+"."+f.Key, inner.Fields)
		}
	}
	for _, p := range pages() {
		t.Run(p.Kind+"/"+p.Name, func(t *testing.T) {
			if p.Description == "" {
				t.Error("the plugin has no description")
			}
			check(t, p.Name, p.Fields)
		})
	}
}
