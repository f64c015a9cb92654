package hostbuild

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"github.com/pentrough/pentrough/internal/newfile"
)

// Options say how to build a host.
type Options struct {
	Plugins []Plugin
	// Output is the file to write.
	Output string
	// Upgrade allows newer versions of modules that the host itself requires.
	Upgrade bool
}

// UpgradeError reports that plugins need newer versions of modules than the host was tested with.
type UpgradeError struct{ Changes []string }

func (e *UpgradeError) Error() string {
	return "the plugins need newer versions than the host has: " + strings.Join(e.Changes, ", ")
}

// Build makes a host with the plugins. It writes the output only after the new program is complete
// and has started once.
func (s Source) Build(ctx context.Context, o Options) (err error) {
	work, err := os.MkdirTemp("", "pentrough-build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := building{Source: s, Options: o, work: work}
	for _, step := range []func(context.Context) error{b.writeRequirements, b.resolveVersions, b.checkPinned, b.checkHostVersion, b.compile, b.checkStart} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return replaceFile(b.binary(), o.Output)
}

// building is one build in progress.
type building struct {
	Source
	Options
	work string
	// host is the host's own go.mod.
	host *modfile.File
}

func (b *building) modfile() string { return filepath.Join(b.work, "go.mod") }
func (b *building) binary() string  { return filepath.Join(b.work, "pentrough") }

// writeRequirements writes a go.mod with the host's requirements and the local plugins.
func (b *building) writeRequirements(context.Context) error {
	text, err := os.ReadFile(filepath.Join(b.Dir, "go.mod"))
	if err != nil {
		return err
	}
	if b.host, err = modfile.Parse("go.mod", text, nil); err != nil {
		return err
	}
	file, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return err
	}
	for _, p := range b.Plugins {
		if p.Dir == "" {
			continue
		}
		if p.Module == Module {
			return fmt.Errorf("%s is the host itself, which already has its own plugins", p.Dir)
		}
		if err := errors.Join(file.AddReplace(p.Module, "", p.Dir, ""), file.AddRequire(p.Module, localVersion)); err != nil {
			return err
		}
	}
	if text, err = file.Format(); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(b.Dir, "go.sum"))
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(b.modfile(), text, 0o600), os.WriteFile(filepath.Join(b.work, "go.sum"), sums, 0o600))
}

// localVersion is the version of a module without one.
const localVersion = "v0.0.0-00010101000000-000000000000"

// resolveVersions finds the versions of all plugins together.
func (b *building) resolveVersions(ctx context.Context) error {
	if len(b.Plugins) == 0 {
		return nil
	}
	args := []string{"get", "-modfile=" + b.modfile()}
	for _, p := range b.Plugins {
		args = append(args, p.Import+"@"+cmp.Or(p.Version, localVersion))
	}
	_, err := runGo(ctx, b.Dir, args...)
	return err
}

// checkPinned checks that the versions of the host's own requirements are unchanged.
func (b *building) checkPinned(context.Context) error {
	text, err := os.ReadFile(b.modfile())
	if err != nil {
		return err
	}
	now, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return err
	}
	got := map[string]string{}
	for _, r := range now.Require {
		got[r.Mod.Path] = r.Mod.Version
	}
	var changes []string
	for _, r := range b.host.Require {
		if version := got[r.Mod.Path]; version != "" && version != r.Mod.Version {
			changes = append(changes, fmt.Sprintf("%s %s (the host has %s)", r.Mod.Path, version, r.Mod.Version))
		}
	}
	if len(changes) > 0 && !b.Upgrade {
		return &UpgradeError{changes}
	}
	return nil
}

// checkHostVersion checks that no plugin requires a newer host.
func (b *building) checkHostVersion(ctx context.Context) error {
	if !semver.IsValid(b.Source.Version) {
		return nil // a checkout is taken to be what the user wants
	}
	for _, p := range b.Plugins {
		out, err := runGo(ctx, b.Dir, "list", "-modfile="+b.modfile(), "-f", "{{with .Module}}{{.GoMod}}{{end}}", p.Import)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(strings.TrimSpace(string(out)))
		if err != nil {
			return err
		}
		file, err := modfile.ParseLax("go.mod", text, nil)
		if err != nil {
			return err
		}
		for _, r := range file.Require {
			if r.Mod.Path == Module && semver.Compare(r.Mod.Version, b.Source.Version) > 0 {
				return fmt.Errorf("plugin %s is made for Pentrough %s, and this host is %s", p.Import, r.Mod.Version, b.Source.Version)
			}
		}
	}
	return nil
}

// overlaid is the file that imports the plugins and records the hashes of local ones.
var overlaid = template.Must(template.New("").Parse(`package main

import (
{{range .Imports}}	_ {{printf "%q" .}}
{{end}})

func init() {
	localPlugins = map[string]string{
{{range $path, $hash := .Local}}		{{printf "%q: %q" $path $hash}},
{{end}}	}
}
`))

// compile builds the host with the additional file.
func (b *building) compile(ctx context.Context) error {
	var imports struct {
		Imports []string
		Local   map[string]string
	}
	for _, p := range b.Plugins {
		imports.Imports = append(imports.Imports, p.Import)
	}
	var err error
	if imports.Local, err = b.hashLocalModules(ctx); err != nil {
		return err
	}
	var source bytes.Buffer
	if err := overlaid.Execute(&source, imports); err != nil {
		return err
	}
	file, overlay := filepath.Join(b.work, "plugins_with.go"), filepath.Join(b.work, "overlay.json")
	over, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(b.Dir, "cmd", "pentrough", "plugins_with.go"): file}})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(file, source.Bytes(), 0o600), os.WriteFile(overlay, over, 0o600)); err != nil {
		return err
	}
	args := []string{"build", "-modfile=" + b.modfile(), "-overlay=" + overlay, "-o", b.binary()}
	if b.Source.Version != "" {
		args = append(args, "-ldflags=-X main.version="+b.Source.Version)
	}
	_, err = runGo(ctx, b.Dir, append(args, "./cmd/pentrough")...)
	return err
}

// checkStart starts the new program once. That finds two plugins of one name.
func (b *building) checkStart(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, b.binary(), "version").CombinedOutput()
	if err == nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		if cause, ok := strings.CutPrefix(line, "panic: "); ok {
			return fmt.Errorf("the host doesn't start: %s", strings.TrimSpace(cause))
		}
	}
	return fmt.Errorf("the host doesn't start: %w\n%s", err, bytes.TrimSpace(out))
}

// replaceFile moves a finished file to its place in one step.
func replaceFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return newfile.Write(to, 0o755, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}
