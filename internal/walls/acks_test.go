package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
)

// A delivery has a function that settles it (decision 0028). So only conformance suites wait for
// the acks of Watermill's messages.
func TestOnlySuitesWaitForAcknowledgements(t *testing.T) {
	for _, p := range ownPackages(t, "") {
		if r, _, _ := roomOf(p.pathInModule()); r != suite {
			p.reportAll(t, findAckWaits, "waits for an acknowledgement")
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
	if n := len(findAckWaits(f)); n != 2 {
		t.Errorf("%d are seen, not 2", n)
	}
}

// findAckWaits returns where a file receives from a message's Acked or Nacked.
func findAckWaits(f *ast.File) (at []token.Pos) {
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
