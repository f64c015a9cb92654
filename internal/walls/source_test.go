package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// reportAll reports an error for each place that find returns in the package's source.
func (p goPackage) reportAll(t *testing.T, find func(*ast.File) []token.Pos, what string) {
	t.Helper()
	for _, file := range p.GoFiles {
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range find(f) {
			t.Errorf("%s %s", files.Position(at), what)
		}
	}
}
