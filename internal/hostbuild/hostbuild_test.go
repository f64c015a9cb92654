package hostbuild

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeModule writes a Go module and returns its folder.
func writeModule(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestParsePlugin(t *testing.T) {
	dir := writeModule(t, map[string]string{"go.mod": "module example.com/door\n", "deep/door.go": "package deep\n"})
	for text, want := range map[string]Plugin{
		"example.com/door":               {Import: "example.com/door", Version: "latest"},
		"example.com/door/lock@v1.2.3":   {Import: "example.com/door/lock", Version: "v1.2.3"},
		dir:                              {Import: "example.com/door", Dir: dir, Module: "example.com/door"},
		filepath.Join(dir, "deep"):       {Import: "example.com/door/deep", Dir: dir, Module: "example.com/door"},
		filepath.Join(dir, ".", "deep/"): {Import: "example.com/door/deep", Dir: dir, Module: "example.com/door"},
	} {
		got, err := ParsePlugin(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", text, err, diff)
		}
	}
	for text, want := range map[string]string{
		"":                             "neither a folder nor an import path",
		"-modfile=/etc/passwd":         "neither a folder nor an import path",
		"example.com/door@":            "without a version",
		"./nothing":                    "no such file or directory",
		filepath.Join(dir, "go.mod"):   "is a file",
		t.TempDir():                    "in no Go module",
		"https://example.com/door.git": "neither a folder nor an import path",
	} {
		if _, err := ParsePlugin(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", text, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	s, err := Find(t.Context(), "")
	if err != nil || s.Version != "" {
		t.Fatalf("%+v, %v", s, err)
	}
	if name, err := modulePath(s.Dir); name != Module || err != nil {
		t.Errorf("this program was built from %s, %v", name, err)
	}
	other := writeModule(t, map[string]string{"go.mod": "module example.com/door\n"})
	for _, want := range []string{other, "./nothing"} {
		if s, err := Find(t.Context(), want); err == nil {
			t.Errorf("%s is %+v", want, s)
		}
	}
}

// begun returns a build that has come as far as require.
func startedBuild(t *testing.T, version string, o Options) *building {
	t.Helper()
	s, err := Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.Version = version
	b := &building{Source: s, Options: o, work: t.TempDir()}
	if err := b.writeRequirements(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheHostsVersionsArePinned(t *testing.T) {
	b := startedBuild(t, "", Options{})
	if err := b.checkPinned(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.modfile())
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(text), "github.com/spf13/cobra v1.", "github.com/spf13/cobra v1.99", 1)
	if err := os.WriteFile(b.modfile(), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	err = b.checkPinned(t.Context())
	if _, ok := errors.AsType[*UpgradeError](err); !ok || !strings.Contains(err.Error(), "github.com/spf13/cobra v1.99") {
		t.Errorf("error %v", err)
	}
	b.Upgrade = true
	if err := b.checkPinned(t.Context()); err != nil {
		t.Errorf("allowed: %v", err)
	}
}

func TestAPluginForANewerHostIsRefused(t *testing.T) {
	dir := writeModule(t, map[string]string{"go.mod": "module example.com/door\n\ngo 1.26\n\nrequire " + Module + " v1.5.0\n", "door.go": "package door\n"})
	p, err := ParsePlugin(dir)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{"v1.4.9": "is made for Pentrough v1.5.0, and this host is v1.4.9", "v1.5.0": "", "v2.0.0": "", "": ""} {
		b := startedBuild(t, version, Options{Plugins: []Plugin{p}})
		if err := b.resolveVersions(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := b.checkHostVersion(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("host %q: error %v, want %q", version, err, want)
		}
	}
}

func TestTheHashIsOfWhatIsBuilt(t *testing.T) {
	dir := writeModule(t, map[string]string{
		"go.mod":  "module example.com/door\n\ngo 1.26\n",
		"door.go": "package door\n\nimport _ \"embed\"\n\n//go:embed words.txt\nvar words string\n\nvar _ = words\n", "words.txt": "open", "door_test.go": "package door\n",
	})
	p, err := ParsePlugin(dir)
	if err != nil {
		t.Fatal(err)
	}
	hash := func() string {
		t.Helper()
		b := startedBuild(t, "", Options{Plugins: []Plugin{p}})
		if err := b.resolveVersions(t.Context()); err != nil {
			t.Fatal(err)
		}
		all, err := b.hashLocalModules(t.Context())
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		return all["example.com/door"]
	}
	first := hash()
	for _, name := range []string{"host", "door_test.go", "words.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("package door // other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if same := hash() == first; same != (name != "words.txt") {
			t.Errorf("with another %s the hash is the same: %v", name, same)
		}
	}
}

func TestTheHostIsNoPluginOfItself(t *testing.T) {
	s, err := Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePlugin(filepath.Join(s.Dir, "handlers", "deliver"))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "host")
	if err := s.Build(t.Context(), Options{Plugins: []Plugin{p}, Output: out}); err == nil || !strings.Contains(err.Error(), "the host itself") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("it was written all the same")
	}
}
