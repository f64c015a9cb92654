package walls

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// Only internal/listen opens listening sockets, so an address means the same in every part of the
// host.
func TestOnePlaceListens(t *testing.T) {
	for _, p := range ownPackages(t, "") {
		if !strings.HasSuffix(p.ImportPath, "/internal/listen") && !strings.Contains(p.ImportPath, "/internal/testenv") {
			p.reportAll(t, findListenCalls, "listens without internal/listen")
		}
	}
}

func TestListeningIsSeen(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "", `package p
func f() {
	net.Listen("tcp", addr)
	lc.Listen(ctx, "tcp", addr)
	new(net.ListenConfig).Listen(ctx, network, addr)
	net.ListenTCP("tcp4", nil)
	tls.Listen("tcp", addr, nil)
	server.ListenAndServe()
	http.ListenAndServeTLS(addr, cert, key, nil)
	listen.TCP(ctx, new(net.ListenConfig), addr)
	log.Info("listening")
}`, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(findListenCalls(f)); n != 7 {
		t.Errorf("%d are seen, not 7", n)
	}
}

// findListenCalls returns where a file opens a listening socket.
func findListenCalls(f *ast.File) (at []token.Pos) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); ok {
			switch s.Sel.Name {
			case "Listen", "ListenTCP", "ListenPacket", "ListenUDP", "ListenAndServe", "ListenAndServeTLS":
				at = append(at, n.Pos())
			}
		}
		return true
	})
	return at
}
