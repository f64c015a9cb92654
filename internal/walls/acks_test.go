package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// A delivery carries the function that settles it (decision 0028), so that only suites wait for what Watermill's messages say of
// that.
func TestOnlySuitesWaitForAcknowledgements(t *testing.T) {
	for _, p := range ownPackages(t, "") {
		if r, _, _ := roomOf(p.inside()); r != suite {
			p.forbids(t, waitsForAcknowledgement, "waits for an acknowledgement")
		}
	}
}

func TestWaitsForAcknowledgementsAreSeen(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "", `package p
func f(msg *message.Message) {
	select {
	case <-msg.Acked():
	case _, ok := <-msg.Nacked():
		_ = confirm.Acked() || ok
	}
}`, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(waitsForAcknowledgement(f)); n != 2 {
		t.Errorf("%d are seen, not 2", n)
	}
}

// waitsForAcknowledgement returns where a file receives from a message's Acked or Nacked.
func waitsForAcknowledgement(f *ast.File) (at []token.Pos) {
	ast.Inspect(f, func(n ast.Node) bool {
		receive, ok := n.(*ast.UnaryExpr)
		if !ok || receive.Op != token.ARROW {
			return true
		}
		if call, ok := receive.X.(*ast.CallExpr); ok {
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && (method.Sel.Name == "Acked" || method.Sel.Name == "Nacked") {
				at = append(at, receive.Pos())
			}
		}
		return true
	})
	return at
}
