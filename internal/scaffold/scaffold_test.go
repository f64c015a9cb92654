package scaffold

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"

	"github.com/pentrough/pentrough/internal/hostbuild"
)

func TestANewModuleIsWrittenOnceAndWhole(t *testing.T) {
	host, err := hostbuild.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bell")
	m := Module{Kind: "handler", Name: "door-bell", Path: "example.com/fleet/bell", Host: host}
	if err := m.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum", "doorbell.go", "doorbell_test.go", "doorbell.toml", "README.md", "cmd/doorbell/main.go"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(string(text), "<<.") {
			t.Errorf("%s has something left to be filled in", name)
		}
	}
	if err := m.Write(dir); err == nil {
		t.Error("it was written over another")
	}
	m.Host.Version = "v1.2.3"
	if text, err := m.goMod(nil); err != nil || !strings.Contains(string(text), hostbuild.Module+" v1.2.3") || strings.Contains(string(text), "replace") {
		t.Errorf("for a version: %v\n%s", err, text)
	}
}

func TestNamesThatCantBe(t *testing.T) {
	for name, module := range map[string]string{"Bell": "example.com/bell", "bell-": "example.com/bell", "": "example.com/bell", "go": "example.com/go", "main": "example.com/main", "codec": "example.com/codec", "bell": "bell at home"} {
		dir := filepath.Join(t.TempDir(), "x")
		if err := (Module{Kind: "handler", Name: name, Path: module}).Write(dir); err == nil {
			t.Errorf("%q of %q was written", name, module)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q left a folder behind", name)
		}
	}
}

// go.mod marks the modules that the new module doesn't import itself.
func TestGoModOfEachKind(t *testing.T) {
	host, err := hostbuild.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range Kinds {
		dir := filepath.Join(t.TempDir(), kind)
		if err := (Module{Kind: kind, Name: "bell", Path: "example.com/bell", Host: host}).Write(dir); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		file, err := modfile.Parse("go.mod", text, nil)
		if err != nil {
			t.Fatal(err)
		}
		direct := []string{hostbuild.Module}
		if kind == "handler" || kind == "middleware" {
			direct = append(direct, "github.com/ThreeDotsLabs/watermill")
		}
		for _, r := range file.Require {
			if r.Indirect == slices.Contains(direct, r.Mod.Path) {
				t.Errorf("%s: %s is indirect: %v", kind, r.Mod.Path, r.Indirect)
			}
		}
	}
}
