package router

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"testing"
)

// The steps that doc.go lists are methods in the files that it names.
func TestTheWayOfAMessageIsWhatTheDocumentationSays(t *testing.T) {
	files := token.NewFileSet()
	doc, err := parser.ParseFile(files, "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	steps := regexp.MustCompile(`(?m)^ +(\d+)\. (\w+)\.(\w+) \((\w+\.go)\): `).FindAllStringSubmatch(doc.Doc.Text(), -1)
	if len(steps) < 5 {
		t.Fatalf("doc.go lists %d steps", len(steps))
	}
	for i, step := range steps {
		number, receiver, method, file := step[1], step[2], step[3], step[4]
		if number != strconv.Itoa(i+1) {
			t.Errorf("step %s is number %d", number, i+1)
		}
		parsed, err := parser.ParseFile(files, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		if !hasMethod(parsed, receiver, method) {
			t.Errorf("step %s: %s has no method %s of %s", number, file, method, receiver)
		}
	}
}

func hasMethod(file *ast.File, receiver, method string) bool {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv == nil || f.Name.Name != method {
			continue
		}
		of := f.Recv.List[0].Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		if name, ok := of.(*ast.Ident); ok && name.Name == receiver {
			return true
		}
	}
	return false
}
