package expression

import (
	"reflect"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// The names of functions that no expression can spell.
const (
	counted = "·"
	step    = counted + "step"
	costs   = counted + "costs"
	made    = counted + "made"
	matches = counted + "matches"
	whole   = counted + "whole"
	entry   = counted + "entry"
	sortKey = counted + "sortKey"
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
	case *ast.ArrayNode:
		if !slices.ContainsFunc(n.Nodes, func(inner ast.Node) bool { return !isLiteral(inner) }) {
			return
		}
		replaceBy(node, whole, n)
	case *ast.MapNode:
		replaceBy(node, whole, n)
	}
}

// dateZone is the argument of date that names a time zone.
const dateZone = 2

// builtin counts what a function of the language reads and makes.
func builtin(node *ast.Node, n *ast.BuiltinNode) {
	for _, arg := range n.Arguments {
		if p, ok := arg.(*ast.PredicateNode); ok {
			predicate(n.Name, p)
			return
		}
	}
	kind, ok := builtins[n.Name]
	if !ok || kind == cheap {
		return
	}
	for i, arg := range n.Arguments {
		kind := kind
		if n.Name == "date" && i == dateZone {
			kind = zone
		}
		n.Arguments[i] = call(arg, counters[kind], arg)
	}
	switch {
	case kind == makes:
		replaceBy(node, made, n)
	case n.Name == "concat":
		replaceBy(node, whole, n)
	}
}

// predicate counts what a function keeps of what its predicate gives. The predicate begins with a step.
func predicate(function string, p *ast.PredicateNode) {
	kept, ok := map[string]string{"map": whole, "groupBy": entry, "sortBy": sortKey}[function]
	if !ok {
		return
	}
	body := p.Node.(*ast.SequenceNode)
	body.Nodes[1] = call(body.Nodes[1], kept, body.Nodes[1])
}

func binary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "+":
		if !isNumber(n.Left) && !isNumber(n.Right) {
			replaceBy(node, add, n.Left, n.Right)
		}
	case "matches":
		replaceBy(node, matches, n.Left, constantPattern(n.Right))
	case "==", "!=", "<", "<=", ">", ">=":
		if !isLiteral(n.Left) && !isLiteral(n.Right) && !isNumber(n.Left) && !isNumber(n.Right) {
			n.Left = call(n.Left, counters[deep], n.Left)
		}
	case "contains":
		n.Left = call(n.Left, costs, n.Left)
	case "startsWith", "endsWith":
		if !isLiteral(n.Right) {
			n.Right = call(n.Right, costs, n.Right)
		}
	case "in", "not in":
		switch right := n.Right.(type) {
		case *ast.ArrayNode, *ast.ConstantNode:
		case *ast.BinaryNode:
			if right.Operator != ".." {
				n.Right = call(right, counters[searched], right)
			}
		default:
			n.Right = call(right, counters[searched], right)
		}
	}
}

// constantPattern returns a pattern that is written out as what it is compiled to.
func constantPattern(n ast.Node) ast.Node {
	text, ok := n.(*ast.StringNode)
	if !ok {
		return n
	}
	compiled, err := compilePattern(text.Value)
	if err != nil {
		return n // Compile has looked at it.
	}
	constant := &ast.ConstantNode{Value: compiled}
	constant.SetLocation(n.Location())
	return constant
}

func isLiteral(n ast.Node) bool {
	switch n.(type) {
	case *ast.NilNode, *ast.BoolNode, *ast.IntegerNode, *ast.FloatNode, *ast.StringNode, *ast.ConstantNode:
		return true
	default:
		return false
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
