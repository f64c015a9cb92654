// Package scaffold writes new plugins: modules that can be tested, built into a host and run at
// once.
package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/pentrough/pentrough/internal/hostbuild"
	"github.com/pentrough/pentrough/internal/newfile"
)

//go:embed README.md.tmpl all:handler all:protocol all:codec all:middleware
//go:embed all:python/new python/pentrough.py
var templates embed.FS

// Kinds has the kinds of plugins that a [Module] can have. The templates of a kind are in the
// folder of this name.
var Kinds = []string{"handler", "protocol", "codec", "middleware"}

// Module describes the Go module of a new plugin.
type Module struct {
	// Kind is the plugin's kind, one of Kinds.
	Kind string
	// Name is the plugin's name in TOML.
	Name string
	// Path is the module's path.
	Path string
	// Host is the source of the host that the plugin is written for.
	Host hostbuild.Source
}

// Package returns the name of the plugin's Go package.
func (m Module) Package() string { return strings.ReplaceAll(m.Name, "-", "") }

var validName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q isn't a name for a plugin; allowed: lower case letters, digits and single dashes", name)
	}
	return nil
}

func (m Module) validate() error {
	var errs []error
	if err := checkName(m.Name); err != nil {
		errs = append(errs, err)
	} else if token.IsKeyword(m.Package()) || slices.Contains(reservedPackages, m.Package()) {
		errs = append(errs, fmt.Errorf("%q can't be the name of its Go package; choose another", m.Package()))
	}
	if err := module.CheckImportPath(m.Path); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// reservedPackages are names that a reader would take for a program, or for the package of a
// contract.
var reservedPackages = []string{"main", "handlers", "protocol", "codec", "middleware"}

// Write creates a folder with the module.
func (m Module) Write(dir string) error {
	if err := m.validate(); err != nil {
		return err
	}
	files := map[string][]byte{}
	if err := renderTemplates(files, m.Kind, m.Package(), m); err != nil {
		return err
	}
	if err := renderTemplate(files, "README.md.tmpl", "README.md", m); err != nil {
		return err
	}
	var err error
	if files["go.mod"], err = m.goMod(files); err != nil {
		return err
	}
	if files["go.sum"], err = os.ReadFile(filepath.Join(m.Host.Dir, "go.sum")); err != nil {
		return err
	}
	return writeFolder(dir, files)
}

// renderTemplates renders the templates of a folder into files. NAME in file names becomes name.
func renderTemplates(files map[string][]byte, folder, name string, data any) error {
	return fs.WalkDir(templates, folder, func(source string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		file := strings.TrimSuffix(strings.TrimPrefix(source, folder+"/"), ".tmpl")
		return renderTemplate(files, source, strings.ReplaceAll(file, "NAME", name), data)
	})
}

// renderTemplate renders one template into a file of files.
func renderTemplate(files map[string][]byte, source, file string, data any) error {
	t, err := template.New(path.Base(source)).Delims("<<", ">>").ParseFS(templates, source)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := t.Execute(&text, data); err != nil {
		return err
	}
	files[file] = text.Bytes()
	return nil
}

// writeFolder creates a folder with the files.
func writeFolder(dir string, files map[string][]byte) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		err := newfile.Write(file, 0o666, func(w io.Writer) error {
			_, err := w.Write(text)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// goMod returns the go.mod of a module with the files. It requires the host and everything that
// the host requires, in the versions that the host was tested with. So no version has to be looked
// up. `go mod tidy` removes what isn't needed.
func (m Module) goMod(files map[string][]byte) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(m.Host.Dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	host, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return nil, err
	}
	var file modfile.File
	version := m.Host.Version
	errs := []error{file.AddModuleStmt(m.Path), file.AddGoStmt(host.Go.Version)}
	if version == "" {
		version = "v0.0.0"
		errs = append(errs, file.AddReplace(hostbuild.Module, "", m.Host.Dir, ""))
	}
	errs = append(errs, file.AddRequire(hostbuild.Module, version))
	for _, r := range host.Require {
		file.AddNewRequire(r.Mod.Path, r.Mod.Version, !imports(files, r.Mod.Path))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	file.SetRequireSeparateIndirect(file.Require)
	file.Cleanup()
	return file.Format()
}

// imports reports whether one of the files imports a package of a module.
func imports(files map[string][]byte, module string) bool {
	for _, text := range files {
		if bytes.Contains(text, []byte(`"`+module+`"`)) || bytes.Contains(text, []byte(`"`+module+`/`)) {
			return true
		}
	}
	return false
}
