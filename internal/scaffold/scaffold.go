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
	"path/filepath"
	"regexp"
	"strings"
	"text/template"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"github.com/pentrough/pentrough/internal/hostbuild"
	"github.com/pentrough/pentrough/internal/newfile"
)

//go:embed all:handler all:python/new python/pentrough.py
var templates embed.FS

// Handler describes the module of a new handler.
type Handler struct {
	// Name is the handler's name in TOML.
	Name string
	// Module is the module's path.
	Module string
	// Host is the source of the host that the handler is written for.
	Host hostbuild.Source
}

// Package returns the name of the handler's Go package.
func (h Handler) Package() string { return strings.ReplaceAll(h.Name, "-", "") }

var validName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

func checkName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q isn't a name for a plugin; allowed: lower case letters, digits and single dashes", name)
	}
	return nil
}

func (h Handler) validate() error {
	var errs []error
	if err := checkName(h.Name); err != nil {
		errs = append(errs, err)
	} else if token.IsKeyword(h.Package()) || h.Package() == "main" || h.Package() == "handlers" {
		errs = append(errs, fmt.Errorf("%q can't be the name of its Go package; choose another", h.Package()))
	}
	if err := module.CheckImportPath(h.Module); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Write creates a folder with the module.
func (h Handler) Write(dir string) error {
	if err := h.validate(); err != nil {
		return err
	}
	requirements, err := h.goMod()
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(h.Host.Dir, "go.sum"))
	if err != nil {
		return err
	}
	files := map[string][]byte{"go.mod": requirements, "go.sum": sums}
	if err := renderTemplates(files, "handler", h.Package(), h); err != nil {
		return err
	}
	return writeFolder(dir, files)
}

// renderTemplates renders the templates of a folder into files. NAME in file names becomes name.
func renderTemplates(files map[string][]byte, folder, name string, data any) error {
	return fs.WalkDir(templates, folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		t, err := template.New(e.Name()).Delims("<<", ">>").ParseFS(templates, path)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, data); err != nil {
			return err
		}
		path = strings.TrimSuffix(strings.TrimPrefix(path, folder+"/"), ".tmpl")
		files[strings.ReplaceAll(path, "NAME", name)] = text.Bytes()
		return nil
	})
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

// goMod returns the module's go.mod. It requires the host and everything that the host requires,
// in the versions that the host was tested with. So no version has to be looked up. `go mod tidy`
// removes what isn't needed.
func (h Handler) goMod() ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(h.Host.Dir, "go.mod"))
	if err != nil {
		return nil, err
	}
	host, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return nil, err
	}
	var file modfile.File
	version := h.Host.Version
	errs := []error{file.AddModuleStmt(h.Module), file.AddGoStmt(host.Go.Version)}
	if version == "" {
		version = "v0.0.0"
		errs = append(errs, file.AddReplace(hostbuild.Module, "", h.Host.Dir, ""))
	}
	errs = append(errs, file.AddRequire(hostbuild.Module, version))
	for _, r := range host.Require {
		file.AddNewRequire(r.Mod.Path, r.Mod.Version, r.Mod.Path != watermillModule)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	file.SetRequireSeparateIndirect(file.Require)
	file.Cleanup()
	return file.Format()
}

// watermillModule is the module that a handler imports in addition to the host.
const watermillModule = "github.com/ThreeDotsLabs/watermill"
