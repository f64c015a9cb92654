package expression

import (
	"maps"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// reads says what of a JSON value is read: all of it, or of an object only some keys. A list is read as each of its elements is. Nothing
// at all is the zero value.
type reads struct {
	all  bool
	keys map[string]*reads
}

// note adds what an expression reads of json. If the expression is nothing but a way into it, such as json.a.b, note returns the way, without
// the name json.
func (r *reads) note(root ast.Node) []string {
	v := &ways{of: map[ast.Node][]string{}}
	ast.Walk(&root, v)
	for way := range maps.Values(v.of) {
		r.add(way)
	}
	if way, ok := v.of[root]; ok && !v.indexed {
		return way
	}
	return nil
}

func (r *reads) add(way []string) {
	at := r
	for _, key := range way {
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

// ways finds the longest ways into json by constant keys: children are visited before their parents.
type ways struct {
	of map[ast.Node][]string
	// indexed says that a way leads through an element of a list.
	indexed bool
}

// Visit looks at one node.
func (v *ways) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "json" {
			v.of[n] = []string{}
		}
	case *ast.MemberNode:
		way, ok := v.of[n.Node]
		if !ok {
			return
		}
		switch key := n.Property.(type) {
		case *ast.StringNode:
			way = append(slices.Clone(way), key.Value)
		case *ast.IntegerNode:
			v.indexed = true
		default:
			return
		}
		delete(v.of, n.Node)
		v.of[n] = way
	}
}
