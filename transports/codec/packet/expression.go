package packet

import (
	"errors"
	"fmt"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
)

// An expression gives the size of a frame from its first bytes. Its language is a part of
// expr-lang: integers, arithmetic, comparisons, conditions, and functions that read the frame.
//
// Only the parser is that of expr-lang, because its machine allocates memory for numbers. The
// parsed expression becomes nested functions, of which each runs at most once. So an expression
// always ends.

const (
	// maxExpression is the largest size of an expression, in bytes.
	maxExpression = 1000
	// maxParts is the largest number of functions that an expression may become. Comparisons with
	// several values compile a part several times.
	maxParts = 1000
)

// integer and condition are parts of an expression. They report ok = false if they read a byte
// that isn't in data.
type (
	integer   func(data []byte) (n int, ok bool)
	condition func(data []byte) (holds, ok bool)
)

// compile compiles an expression that gives an integer.
func compile(source string) (integer, error) {
	if len(source) > maxExpression {
		return nil, fmt.Errorf("has %d bytes; allowed: up to %d", len(source), maxExpression)
	}
	tree, err := parser.Parse(source)
	if err != nil {
		if at, ok := errors.AsType[*file.Error](err); ok {
			return nil, at
		}
		return nil, err
	}
	return new(compiler).integer(tree.Node)
}

// compiler counts the parts of an expression.
type compiler struct{ parts int }

// wrong returns an error at the place of a node.
func wrong(n ast.Node, message string) error {
	return &file.Error{Location: n.Location(), Message: message}
}

// readers are the functions that read a big-endian number at a byte of the frame. They map the
// name to the size of the number.
var readers = map[string]number{
	"u8": {size: 1}, "u16": {size: 2}, "u32": {size: 4},
	"u16le": {size: 2, little: true}, "u32le": {size: 4, little: true},
}

var operators = map[string]func(a, b int) int{
	"+": func(a, b int) int { return a + b },
	"-": func(a, b int) int { return a - b },
	"*": func(a, b int) int { return a * b },
	"%": func(a, b int) int { return a % b },
}

// bitOperators are functions in expr-lang. A count of bits is from 0 to 31.
var bitOperators = map[string]func(a, b int) int{
	"bitand": func(a, b int) int { return a & b },
	"bitor":  func(a, b int) int { return a | b },
	"bitxor": func(a, b int) int { return a ^ b },
	"bitshl": func(a, b int) int { return a << (b & 31) },
	"bitshr": func(a, b int) int { return a >> (b & 31) },
}

var comparisons = map[string]func(a, b int) bool{
	"==": func(a, b int) bool { return a == b },
	"!=": func(a, b int) bool { return a != b },
	"<":  func(a, b int) bool { return a < b },
	"<=": func(a, b int) bool { return a <= b },
	">":  func(a, b int) bool { return a > b },
	">=": func(a, b int) bool { return a >= b },
}

func (c *compiler) integer(node ast.Node) (integer, error) {
	if c.parts++; c.parts > maxParts {
		return nil, wrong(node, "the expression has too many parts")
	}
	switch n := node.(type) {
	case *ast.IntegerNode:
		return func([]byte) (int, bool) { return n.Value, true }, nil
	case *ast.UnaryNode:
		of, err := c.integer(n.Node)
		switch {
		case err != nil:
			return nil, err
		case n.Operator == "+":
			return of, nil
		case n.Operator == "-":
			return func(data []byte) (int, bool) {
				v, ok := of(data)
				return -v, ok
			}, nil
		}
	case *ast.BinaryNode:
		if f, ok := operators[n.Operator]; ok {
			if by, isInteger := n.Right.(*ast.IntegerNode); n.Operator == "%" && (!isInteger || by.Value == 0) {
				return nil, wrong(n.Right, "% needs a number that isn't 0")
			}
			return c.combine(f, n.Left, n.Right)
		}
	case *ast.BuiltinNode:
		if f, ok := bitOperators[n.Name]; ok && len(n.Arguments) == 2 {
			return c.combine(f, n.Arguments[0], n.Arguments[1])
		}
	case *ast.CallNode:
		name, _ := n.Callee.(*ast.IdentifierNode)
		if name == nil || len(n.Arguments) != 1 {
			break
		}
		if field, ok := readers[name.Value]; ok {
			return c.reader(field, n.Arguments[0])
		}
	case *ast.ConditionalNode:
		test, err := c.condition(n.Cond)
		yes, err1 := c.integer(n.Exp1)
		no, err2 := c.integer(n.Exp2)
		if err := errors.Join(err, err1, err2); err != nil {
			return nil, err
		}
		return func(data []byte) (int, bool) {
			holds, ok := test(data)
			switch {
			case !ok:
				return 0, false
			case holds:
				return yes(data)
			}
			return no(data)
		}, nil
	}
	return nil, wrong(node, "isn't allowed here; allowed are integers, u8(i), u16(i), u32(i), u16le(i), u32le(i), + - * %, bitand, bitor, bitxor, bitshl, bitshr, and conditions such as a < b ? c : d")
}

func (c *compiler) reader(field number, index ast.Node) (integer, error) {
	at, err := c.integer(index)
	if err != nil {
		return nil, err
	}
	return func(data []byte) (int, bool) {
		i, ok := at(data)
		if !ok || i < 0 || i > len(data)-field.size {
			return 0, false
		}
		n, _ := field.read(data[i:])
		return int(n), true
	}, nil
}

func (c *compiler) combine(f func(a, b int) int, left, right ast.Node) (integer, error) {
	a, err := c.integer(left)
	b, err1 := c.integer(right)
	if err := errors.Join(err, err1); err != nil {
		return nil, err
	}
	return func(data []byte) (int, bool) {
		x, okX := a(data)
		y, okY := b(data)
		return f(x, y), okX && okY
	}, nil
}

func (c *compiler) condition(node ast.Node) (condition, error) {
	if c.parts++; c.parts > maxParts {
		return nil, wrong(node, "the expression has too many parts")
	}
	switch n := node.(type) {
	case *ast.UnaryNode:
		if n.Operator != "!" && n.Operator != "not" {
			break
		}
		of, err := c.condition(n.Node)
		if err != nil {
			return nil, err
		}
		return func(data []byte) (bool, bool) {
			holds, ok := of(data)
			return !holds, ok
		}, nil
	case *ast.BinaryNode:
		if f, ok := comparisons[n.Operator]; ok {
			return c.compare(f, n.Left, n.Right)
		}
		switch n.Operator {
		case "in":
			return c.in(n)
		case "&&", "and":
			return c.both(n, false)
		case "||", "or":
			return c.both(n, true)
		}
	}
	return nil, wrong(node, "isn't a condition; allowed are == != < <= > >=, in, and, or, not")
}

func (c *compiler) compare(f func(a, b int) bool, left, right ast.Node) (condition, error) {
	a, err := c.integer(left)
	b, err1 := c.integer(right)
	if err := errors.Join(err, err1); err != nil {
		return nil, err
	}
	return func(data []byte) (bool, bool) {
		x, okX := a(data)
		y, okY := b(data)
		return f(x, y), okX && okY
	}, nil
}

// in compiles a comparison with each element of a list.
func (c *compiler) in(n *ast.BinaryNode) (condition, error) {
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		return nil, wrong(n.Right, "in needs a list such as [1, 2]")
	}
	var either condition = func([]byte) (bool, bool) { return false, true }
	for _, element := range list.Nodes {
		same, err := c.compare(comparisons["=="], n.Left, element)
		if err != nil {
			return nil, err
		}
		either = join(either, same, true)
	}
	return either, nil
}

func (c *compiler) both(n *ast.BinaryNode, decisive bool) (condition, error) {
	a, err := c.condition(n.Left)
	b, err1 := c.condition(n.Right)
	if err := errors.Join(err, err1); err != nil {
		return nil, err
	}
	return join(a, b, decisive), nil
}

// join returns the result of a if that is the decisive one, and else the result of b.
func join(a, b condition, decisive bool) condition {
	return func(data []byte) (bool, bool) {
		if holds, ok := a(data); !ok || holds == decisive {
			return holds, ok
		}
		return b(data)
	}
}
