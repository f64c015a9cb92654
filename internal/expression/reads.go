package expression

import (
	"maps"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// reads is the set of parts of a JSON value that programs read: all of it, or some keys of an
// object. It applies to each element of a list. The zero value is the empty set.
type reads struct {
	all  bool
	keys map[string]*reads
}

// addExpression adds the parts of json that an expression reads. If the expression is only a path
// such as json.a.b, it returns the path without json.
func (r *reads) addExpression(root ast.Node) []string {
	v := &pathFinder{paths: map[ast.Node][]string{}}
	ast.Walk(&root, v)
	for path := range maps.Values(v.paths) {
		r.addPath(path)
	}
	if path, ok := v.paths[root]; ok && !v.indexed {
		return path
	}
	return nil
}

// addPath adds the value at a path.
func (r *reads) addPath(path []string) {
	at := r
	for _, key := range path {
		if at.all {
			return
		}
		if at.keys == nil {
			at.keys = map[string]*reads{}
		}
		if at.keys[key] == nil {
			at.keys[key] = &reads{}
		}
		at = at.keys[key]
	}
	at.all, at.keys = true, nil
}

// pathFinder finds the longest paths of constant keys into json. The walk visits children before
// their parents.
type pathFinder struct {
	paths map[ast.Node][]string
	// indexed is set if a path contains an index of a list.
	indexed bool
}

// Visit extends the paths by one node.
func (v *pathFinder) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "json" {
			v.paths[n] = []string{}
		}
	case *ast.MemberNode:
		path, ok := v.paths[n.Node]
		if !ok {
			return
		}
		switch key := n.Property.(type) {
		case *ast.StringNode:
			path = append(slices.Clone(path), key.Value)
		case *ast.IntegerNode:
			v.indexed = true
		default:
			return
		}
		delete(v.paths, n.Node)
		v.paths[n] = path
	}
}
