package walls

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A log in JSON is read by programs, for which a field that is a number in one line and a string
// in another is an error. So each key has values of one kind in the whole program.
func TestALogKeyHasOneKind(t *testing.T) {
	exports := map[string]string{}
	for _, p := range packages(t) {
		exports[p.ImportPath] = p.Export
	}
	files := token.NewFileSet()
	config := types.Config{Importer: importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("go list gave no export data of %s", path)
		}
		return os.Open(exports[path])
	})}
	kinds := map[string]map[string]token.Position{}
	for _, p := range ownPackages(t, "") {
		var parsed []*ast.File
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(files, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, f)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
		if _, err := config.Check(p.ImportPath, files, parsed, info); err != nil {
			t.Fatalf("checking the types of %s: %v", p.ImportPath, err)
		}
		for _, f := range parsed {
			noteLogKeys(info, f, func(key, kind string, at token.Pos) {
				if kinds[key] == nil {
					kinds[key] = map[string]token.Position{}
				}
				kinds[key][kind] = files.Position(at)
			})
		}
	}
	if len(kinds["err"]) == 0 {
		t.Error("no error is logged; are the log calls found?")
	}
	for _, key := range slices.Sorted(maps.Keys(kinds)) {
		if len(kinds[key]) > 1 {
			t.Errorf("the log key %q has several kinds of values:", key)
			for kind, at := range kinds[key] {
				t.Errorf("  %s, such as in %s", kind, at)
			}
		}
	}
}

// noteLogKeys calls note with each constant key of a log call in a file, and the kind of its
// value.
func noteLogKeys(info *types.Info, f *ast.File, note func(key, kind string, at token.Pos)) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || call.Ellipsis.IsValid() {
			return true
		}
		args := call.Args
		switch first := firstLogKey(info, call); {
		case first < 0 || first > len(args):
			return true
		default:
			args = args[first:]
		}
		for len(args) >= 2 {
			value := info.Types[args[0]].Value
			if value == nil { // a slog.Attr, or a key that isn't constant
				args = args[1:]
				continue
			}
			if key, err := strconv.Unquote(value.ExactString()); err == nil {
				note(key, logKind(info.Types[args[1]].Type), args[1].Pos())
			}
			args = args[2:]
		}
		return true
	})
}

// firstLogKey returns the index of the first key of a call to a *slog.Logger's method, or -1.
func firstLogKey(info *types.Info, call *ast.CallExpr) int {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return -1
	}
	selection := info.Selections[method]
	if selection == nil || selection.Recv().String() != "*log/slog.Logger" {
		return -1
	}
	switch method.Sel.Name {
	case "With":
		return 0
	case "Debug", "Info", "Warn", "Error":
		return 1
	case "Log":
		return 3
	}
	return -1
}

// logKind returns what a value is in a JSON log. telemetry writes durations, addresses, errors and
// everything else that has a text as text.
func logKind(t types.Type) string {
	for _, method := range []string{"Error", "String", "MarshalText", "LogValue"} {
		if o, _, _ := types.LookupFieldOrMethod(t, true, nil, method); o != nil {
			return "text"
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case u.Info()&types.IsString != 0:
			return "text"
		case u.Info()&types.IsNumeric != 0:
			return "number"
		case u.Info()&types.IsBoolean != 0:
			return "bool"
		}
	case *types.Slice:
		return "list of " + logKind(u.Elem())
	case *types.Interface:
		return "text" // any: a panic's value, which is written as text
	}
	return t.String()
}

func TestLogKeysAreSeen(t *testing.T) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "", `package p
import ("errors"; "log/slog"; "time")
func f(log *slog.Logger) {
	log.Info("x", "n", 1, "s", "text")
	log.With("n", "text").Warn("x", "err", errors.New("y"), slog.Int("other", 1), "d", time.Second)
	log.Error("x", "ok", true, "l", []string{})
}`, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	config := types.Config{Importer: importer.ForCompiler(files, "source", nil)}
	if _, err := config.Check("p", files, []*ast.File{f}, info); err != nil {
		t.Fatal(err)
	}
	var seen []string
	noteLogKeys(info, f, func(key, kind string, _ token.Pos) { seen = append(seen, key+" "+kind) })
	want := []string{"n text", "d text", "err text", "l list of text", "n number", "ok bool", "s text"}
	slices.Sort(seen)
	slices.Sort(want)
	if !slices.Equal(seen, want) {
		t.Errorf("%s, not %s", strings.Join(seen, ", "), strings.Join(want, ", "))
	}
}
