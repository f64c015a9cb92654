package expression

import (
	"reflect"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// The names of the counting functions. No expression can contain them.
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

// patcher replaces names by calls that read them from the message. It adds counting where the time
// or memory of a run depends on the message.
type patcher struct{}

// Visit replaces one node. The walk has visited its children before.
func (*patcher) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if _, ok := variables[n.Value]; ok {
			replaceWithCall(node, counted+n.Value)
		}
	case *ast.PredicateNode:
		tick := hostCall(n, step)
		body := &ast.SequenceNode{Nodes: []ast.Node{tick, n.Node}}
		body.SetLocation(n.Node.Location())
		n.Node = body
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			if _, ok := functions[name.Value]; ok {
				replaceWithCall(node, counted+name.Value, n.Arguments...)
			}
		}
	case *ast.BuiltinNode:
		countBuiltin(node, n)
	case *ast.BinaryNode:
		countBinary(node, n)
	case *ast.ArrayNode:
		if !slices.ContainsFunc(n.Nodes, func(inner ast.Node) bool { return !isLiteral(inner) }) {
			return
		}
		replaceWithCall(node, whole, n)
	case *ast.MapNode:
		replaceWithCall(node, whole, n)
	}
}

// dateZone is the argument of date that names a time zone.
const dateZone = 2

// countBuiltin adds the counting of the data that a function of the language reads and makes.
func countBuiltin(node *ast.Node, n *ast.BuiltinNode) {
	for _, arg := range n.Arguments {
		if p, ok := arg.(*ast.PredicateNode); ok {
			countPredicate(n.Name, p)
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
		n.Arguments[i] = hostCall(arg, counters[kind], arg)
	}
	switch {
	case kind == makes:
		replaceWithCall(node, made, n)
	case n.Name == "concat":
		replaceWithCall(node, whole, n)
	}
}

// countPredicate adds the counting of the results of a predicate that the function keeps. A
// predicate is two nodes by now: a step, and the body.
func countPredicate(function string, p *ast.PredicateNode) {
	kept, ok := map[string]string{"map": whole, "groupBy": entry, "sortBy": sortKey}[function]
	if !ok {
		return
	}
	body := p.Node.(*ast.SequenceNode)
	body.Nodes[1] = hostCall(body.Nodes[1], kept, body.Nodes[1])
}

// countBinary adds the counting of a binary operator.
func countBinary(node *ast.Node, n *ast.BinaryNode) {
	switch n.Operator {
	case "+":
		if !isNumber(n.Left) && !isNumber(n.Right) {
			replaceWithCall(node, add, n.Left, n.Right)
		}
	case "matches":
		replaceWithCall(node, matches, n.Left, constantPattern(n.Right))
	case "==", "!=", "<", "<=", ">", ">=":
		if !isLiteral(n.Left) && !isLiteral(n.Right) && !isNumber(n.Left) && !isNumber(n.Right) {
			n.Left = hostCall(n.Left, counters[deep], n.Left)
		}
	case "contains":
		n.Left = hostCall(n.Left, costs, n.Left)
	case "startsWith", "endsWith":
		if !isLiteral(n.Right) {
			n.Right = hostCall(n.Right, costs, n.Right)
		}
	case "in", "not in":
		switch right := n.Right.(type) {
		case *ast.ArrayNode, *ast.ConstantNode:
		case *ast.BinaryNode:
			if right.Operator != ".." {
				n.Right = hostCall(right, counters[searched], right)
			}
		default:
			n.Right = hostCall(right, counters[searched], right)
		}
	}
}

// constantPattern returns a constant pattern in compiled form.
func constantPattern(n ast.Node) ast.Node {
	text, ok := n.(*ast.StringNode)
	if !ok {
		return n
	}
	compiled, err := compilePattern(text.Value)
	if err != nil {
		return n // findWrongPattern reports it
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
		// A duration is an int64, too, and can't be added to a string either.
		return true
	default:
		return false
	}
}

// hostCall returns a call of one of the host's functions, at the place of a node.
func hostCall(place ast.Node, name string, args ...ast.Node) ast.Node {
	env, callee := &ast.IdentifierNode{Value: "$env"}, &ast.IdentifierNode{Value: name}
	n := &ast.CallNode{Callee: callee, Arguments: append([]ast.Node{env}, args...)}
	for _, part := range []ast.Node{env, callee, n} {
		part.SetLocation(place.Location())
	}
	return n
}

func replaceWithCall(node *ast.Node, name string, args ...ast.Node) {
	*node = hostCall(*node, name, args...)
}
