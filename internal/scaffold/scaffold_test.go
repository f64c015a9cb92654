package scaffold

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pentrough/pentrough/internal/hostbuild"
)

func TestANewModuleIsWrittenOnceAndWhole(t *testing.T) {
	host, err := hostbuild.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "bell")
	h := Handler{Name: "door-bell", Module: "example.com/fleet/bell", Host: host}
	if err := h.Write(dir); err != nil {
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
	if err := h.Write(dir); err == nil {
		t.Error("it was written over another")
	}
	h.Host.Version = "v1.2.3"
	if text, err := h.goMod(); err != nil || !strings.Contains(string(text), hostbuild.Module+" v1.2.3") || strings.Contains(string(text), "replace") {
		t.Errorf("for a version: %v\n%s", err, text)
	}
}

func TestNamesThatCantBe(t *testing.T) {
	for name, module := range map[string]string{"Bell": "example.com/bell", "bell-": "example.com/bell", "": "example.com/bell", "go": "example.com/go", "main": "example.com/main", "bell": "bell at home"} {
		dir := filepath.Join(t.TempDir(), "x")
		if err := (Handler{Name: name, Module: module}).Write(dir); err == nil {
			t.Errorf("%q of %q was written", name, module)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%q left a folder behind", name)
		}
	}
}
