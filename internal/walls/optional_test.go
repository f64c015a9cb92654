package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The package documentation of transports lists the optional interfaces and their implementers.
// The code declares them, as in `var _ transports.Tapper = (*transport)(nil)`.
func TestTheListOfOptionalInterfacesIsTrue(t *testing.T) {
	row := regexp.MustCompile(`(?m)^\t\[(\w+)\] +(\w+(?:, \w+)*)  `)
	said, found, asked := map[string]string{}, map[string][]string{}, map[string]bool{}
	for _, p := range ownPackages(t, "") {
		if r, _, _ := roomOf(p.pathInModule()); r == suite {
			continue
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if p.pathInModule() == "transports" && f.Doc != nil {
				for _, m := range row.FindAllStringSubmatch(f.Doc.Text(), -1) {
					said[m[1]] = m[2]
				}
			}
			implements, asks := optionalInterfaces(f)
			for _, i := range asks {
				if i != "Config" && i != "Plugin" { // what the registry has
					asked[i] = true
				}
			}
			if isWithin(p.pathInModule(), "transports") {
				for _, i := range implements {
					found[i] = append(found[i], path.Base(p.pathInModule()))
				}
			}
		}
	}
	if len(said) == 0 {
		t.Fatal("the documentation of package transports has no list of optional interfaces")
	}
	for name, by := range said {
		implementers := slices.Compact(slices.Sorted(slices.Values(found[name])))
		if got := strings.Join(implementers, ", "); got != by {
			t.Errorf("%s is implemented by %s, and the list says %s", name, got, by)
		}
	}
	if asked, listed := slices.Sorted(maps.Keys(asked)), slices.Sorted(maps.Keys(said)); !slices.Equal(asked, listed) {
		t.Errorf("the code asks for %q, and the list has %q", asked, listed)
	}
}

// optionalInterfaces returns the interfaces of package transports that a file declares to
// implement, and those that it uses in type assertions.
func optionalInterfaces(f *ast.File) (implements, asks []string) {
	name := func(e ast.Expr) string {
		s, ok := e.(*ast.SelectorExpr)
		if !ok {
			return ""
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Name == "transports" {
			return s.Sel.Name
		}
		return ""
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if i := name(n.Type); i != "" && n.Names[0].Name == "_" {
				implements = append(implements, i)
			}
		case *ast.TypeAssertExpr:
			if i := name(n.Type); i != "" {
				asks = append(asks, i)
			} else if id, ok := n.Type.(*ast.Ident); ok && f.Name.Name == "transports" && ast.IsExported(id.Name) {
				asks = append(asks, id.Name)
			}
		}
		return true
	})
	return implements, asks
}
