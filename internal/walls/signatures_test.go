package walls

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type imported struct {
	path  string
	blank bool
}

func parseImports(t *testing.T, file string) []imported {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var all []imported
	for _, spec := range f.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, imported{path: path, blank: spec.Name != nil && spec.Name.Name == "_"})
	}
	return all
}

// A user of a public package can name every type that its exported names mention: none of
// internal/, and none of the TOML library.
func TestExportedSignaturesNameNothingInternal(t *testing.T) {
	exports := map[string]string{}
	var public []string
	for _, p := range packages(t) {
		exports[p.ImportPath] = p.Export
		if in, ok := strings.CutPrefix(p.ImportPath, module+"/"); ok && p.Name != "main" && !slices.Contains(strings.Split(in, "/"), "internal") {
			public = append(public, p.ImportPath)
		}
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("go list gave no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	for _, path := range public {
		pkg, err := imp.Import(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range findLeaks(pkg) {
			t.Error(found)
		}
	}
}

// findLeaks returns the places where the exported names of pkg mention a type that users can't
// name.
func findLeaks(pkg *types.Package) []string {
	w := &walker{pkg: pkg, seen: map[types.Type]bool{}}
	for _, name := range pkg.Scope().Names() {
		if o := pkg.Scope().Lookup(name); ast.IsExported(name) {
			w.at = pkg.Path() + "." + name
			w.walkObject(o)
		}
	}
	return w.found
}

type walker struct {
	pkg   *types.Package
	at    string
	seen  map[types.Type]bool
	found []string
}

func (w *walker) walkObject(o types.Object) {
	tn, ok := o.(*types.TypeName)
	if !ok {
		w.walk(o.Type())
		return
	}
	if tn.IsAlias() {
		w.walk(types.Unalias(tn.Type()))
		return
	}
	w.walkOwnType(tn.Type().(*types.Named))
}

// walkOwnType walks the definition and the exported methods of a type of the package itself.
func (w *walker) walkOwnType(n *types.Named) {
	if w.seen[n] {
		return
	}
	w.seen[n] = true
	w.walk(n.Underlying())
	for m := range n.Methods() {
		if m.Exported() {
			w.walk(m.Type())
		}
	}
}

func (w *walker) walk(t types.Type) {
	switch t := t.(type) {
	case *types.Alias:
		w.walk(types.Unalias(t))
	case *types.Named:
		for a := range t.TypeArgs().Types() {
			w.walk(a)
		}
		switch p := t.Obj().Pkg(); {
		case p == nil:
		case p.Path() == w.pkg.Path():
			w.walkOwnType(t)
		case strings.HasPrefix(p.Path(), module+"/internal/"), p.Path() == "github.com/BurntSushi/toml":
			w.found = append(w.found, w.at+" mentions "+t.String())
		}
	case *types.Pointer:
		w.walk(t.Elem())
	case *types.Slice:
		w.walk(t.Elem())
	case *types.Array:
		w.walk(t.Elem())
	case *types.Chan:
		w.walk(t.Elem())
	case *types.Map:
		w.walk(t.Key())
		w.walk(t.Elem())
	case *types.Signature:
		for v := range t.Params().Variables() {
			w.walk(v.Type())
		}
		for v := range t.Results().Variables() {
			w.walk(v.Type())
		}
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() {
				w.walk(f.Type())
			}
		}
	case *types.Interface:
		for m := range t.Methods() {
			w.walk(m.Type())
		}
	case *types.TypeParam:
		w.walk(t.Constraint())
	case *types.Union:
		for term := range t.Terms() {
			w.walk(term.Type())
		}
	}
}

func TestLeaksAreSeen(t *testing.T) {
	fset := token.NewFileSet()
	inner := typeCheck(t, fset, nil, module+"/internal/secret", `package secret
type T struct{}`)
	for name, c := range map[string]struct {
		source string
		leaks  int
	}{
		"parameter":         {"func F(secret.T) {}", 1},
		"result":            {"func F() (int, *secret.T) { return 0, nil }", 1},
		"field":             {"type S struct{ F []secret.T }", 1},
		"embedded":          {"type S struct{ secret.T }", 1},
		"method":            {"type S int; func (S) M(map[string]secret.T) {}", 1},
		"interface":         {"type I interface{ M() <-chan secret.T }", 1},
		"alias":             {"type A = secret.T", 1},
		"variable":          {"var V = secret.T{}", 1},
		"through own type":  {"type s struct{ F secret.T }; func F() s { return s{} }", 1},
		"unexported field":  {"type S struct{ f secret.T }", 0},
		"unexported name":   {"func f(secret.T) {}", 0},
		"unexported method": {"type S int; func (S) m(secret.T) {}", 0},
		"only inside":       {"func F() { var x secret.T; _ = x }", 0},
	} {
		t.Run(name, func(t *testing.T) {
			pkg := typeCheck(t, fset, inner, module+"/public", "package public\nimport \""+inner.Path()+"\"\nvar _ secret.T\n"+c.source)
			if found := findLeaks(pkg); len(found) != c.leaks {
				t.Errorf("found %q, want %d", found, c.leaks)
			}
		})
	}
}

type fixedImporter struct{ pkg *types.Package }

func (o fixedImporter) Import(string) (*types.Package, error) { return o.pkg, nil }

func typeCheck(t *testing.T, fset *token.FileSet, dep *types.Package, path, source string) *types.Package {
	t.Helper()
	f, err := parser.ParseFile(fset, path+".go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := (&types.Config{Importer: fixedImporter{dep}}).Check(path, fset, []*ast.File{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pkg
}
