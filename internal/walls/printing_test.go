package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// Commands write their output to a printable.Writer, which main puts in front of standard output
// and standard error. Code that names these, or prints without a writer, bypasses it.
func TestCommandsPrintThroughOneWriter(t *testing.T) {
	for _, p := range ownPackages(t, "cmd") {
		p.reportAll(t, findDirectPrints, "prints without a printable.Writer")
	}
}

func TestPrintsToStandardOutputAreSeen(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "", `package p
func f(cmd *cobra.Command) {
	fmt.Println("x")
	fmt.Fprintln(os.Stderr, "x")
	os.Stdout.Write(nil)
	println()
	run(printable.NewWriter(os.Stdout), printable.NewWriter(os.Stderr))
	fmt.Fprintln(cmd.OutOrStdout(), "x")
}`, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(findDirectPrints(f)); n != 4 {
		t.Errorf("%d are seen, not 4", n)
	}
}

// findDirectPrints returns where a file prints without a printable.Writer.
func findDirectPrints(f *ast.File) (at []token.Pos) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if fun, ok := n.Fun.(*ast.Ident); ok && (fun.Name == "print" || fun.Name == "println") {
				at = append(at, n.Pos())
			}
			if of, name := selectorNames(n.Fun); of == "printable" && name == "NewWriter" {
				return false
			}
		case *ast.SelectorExpr:
			switch of, name := selectorNames(n); {
			case of == "os" && (name == "Stdout" || name == "Stderr"), of == "fmt" && (name == "Print" || name == "Println" || name == "Printf"):
				at = append(at, n.Pos())
			}
		}
		return true
	})
	return at
}

// selectorNames returns the two names of an expression such as os.Stdout.
func selectorNames(e ast.Expr) (of, name string) {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name, s.Sel.Name
		}
	}
	return "", ""
}
