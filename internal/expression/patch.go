package expression

import (
	"reflect"

	"github.com/expr-lang/expr/ast"
)

// The names of functions that no expression can spell.
const (
	counted = "·"
	step    = counted + "step"
	costs   = counted + "costs"
	dear    = counted + "dear"
	made    = counted + "made"
	add     = counted + "add"
)

// patcher replaces names by what fetches them from the message, and puts counting wherever the time or memory of a run depends on the message.
type patcher struct{}

// Visit replaces one node. Its children have been visited.
func (*patcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if _, ok := variables[n.Value]; ok {
			replaceBy(node, counted+n.Value)
		}
	case *ast.PredicateNode:
		tick := call(n, step)
		body := &ast.SequenceNode{Nodes: []ast.Node{tick, n.Node}}
		body.SetLocation(n.Node.Location())
		n.Node = body
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			if _, ok := functions[name.Value]; ok {
				replaceBy(node, counted+name.Value, n.Arguments...)
			}
		}
	case *ast.BuiltinNode:
		builtin(node, n)
	case *ast.BinaryNode:
		binary(node, n)
	}
}

// builtin counts what a function of the language reads and makes.
func builtin(node *ast.Node, n *ast.BuiltinNode) {
	kind, ok := builtins[n.Name]
	if !ok || kind == cheap {
		return
	}
	for i, arg := range n.Arguments {
		if _, ok := arg.(*ast.PredicateNode); ok {
			return
		}
		n.Arguments[i] = call(arg, costs, arg)
	}
	switch kind {
	case squared:
		n.Arguments[0] = call(n.Arguments[0], counted+"squared", n.Arguments[0])
	case makes:
		replaceBy(node, made, n)
	}
}

func binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "+":
		if !isNumber(n.Left) && !isNumber(n.Right) {
			replaceBy(node, add, n.Left, n.Right)
		}
	case "matches":
		n.Left = call(n.Left, dear, n.Left)
		if _, constant := n.Right.(*ast.StringNode); !constant {
			n.Right = call(n.Right, dear, n.Right)
		}
	case "contains":
		n.Left = call(n.Left, costs, n.Left)
	case "in", "not in":
		switch right := n.Right.(type) {
		case *ast.ArrayNode, *ast.ConstantNode:
		case *ast.BinaryNode:
			if right.Operator != ".." {
				n.Right = call(right, costs, right)
			}
		default:
			n.Right = call(right, costs, right)
		}
	}
}

func isNumber(n ast.Node) bool {
	switch n.Type().Kind() {
	case reflect.Int, reflect.Int64, reflect.Float64:
		// A duration is an int64 too; it can't be added to a string either.
		return true
	default:
		return false
	}
}

// call is a call of one of the host's functions, in the place of a node.
func call(place ast.Node, name string, args ...ast.Node) ast.Node {
	env, callee := &ast.IdentifierNode{Value: "$env"}, &ast.IdentifierNode{Value: name}
	n := &ast.CallNode{Callee: callee, Arguments: append([]ast.Node{env}, args...)}
	for _, part := range []ast.Node{env, callee, n} {
		part.SetLocation(place.Location())
	}
	return n
}

func replaceBy(node *ast.Node, name string, args ...ast.Node) {
	*node = call(*node, name, args...)
}
