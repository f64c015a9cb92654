package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
)

// forbids reports the places that find returns in the source of a package, with what is wrong there.
func (p listed) forbids(t *testing.T, find func(*ast.File) []token.Pos, what string) {
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
