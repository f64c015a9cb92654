package byteexpr

import (
	"bytes"
	"slices"

	"github.com/expr-lang/expr/ast"
)

// booleans compiles an operator on true and false. It returns the zero value if there is no such
// operator.
func booleans(operator string, left, right Value) Value {
	both := left.test != nil && right.test != nil && left.test.At == right.test.At
	switch operator {
	case "and", "&&":
		if both {
			return combined(left, right, func(x, y uint64) uint64 { return x & y })
		}
		return booleanOf(func(in Input) (bool, error) {
			if b, err := left.boolean(in); err != nil || !b {
				return false, err
			}
			return right.boolean(in)
		})
	case "or", "||":
		if both {
			return combined(left, right, func(x, y uint64) uint64 { return x | y })
		}
		return booleanOf(func(in Input) (bool, error) {
			if b, err := left.boolean(in); err != nil || b {
				return b, err
			}
			return right.boolean(in)
		})
	case "==", "!=":
		same := operator == "=="
		return booleanOf(func(in Input) (bool, error) {
			x, err := left.boolean(in)
			if err != nil {
				return false, err
			}
			y, err := right.boolean(in)
			return (x == y) == same, err
		})
	}
	return Value{}
}

// combined returns one test for two tests of the same byte.
func combined(left, right Value, combine func(x, y uint64) uint64) Value {
	t := &ByteTest{At: left.test.At}
	for i := range t.set {
		t.set[i] = combine(left.test.set[i], right.test.set[i])
	}
	return left.tested(t)
}

// in compiles the operator in, whose right side is a list.
func (c *compiler) in(n *ast.BinaryNode, left Value) (Value, error) {
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		hint := ""
		if left.kind == Text {
			hint = `; for a part of a text use text contains "x"`
		}
		return Value{}, c.at(n).errorf("in needs a list, such as x in [1, 2]%s", hint)
	}
	if left.kind == Boolean {
		return Value{}, c.at(n).errorf("in can't be used with %v", left.kind)
	}
	elements := make([]Value, len(list.Nodes))
	for i, element := range list.Nodes {
		v, err := c.node(element)
		if err != nil {
			return Value{}, err
		}
		if v.kind != left.kind {
			return Value{}, c.at(element).errorf("the elements must be of the type on the left, which is %v", left.kind)
		}
		elements[i] = v
	}
	all := append([]Value{left}, elements...)
	if left.kind == Text {
		return fold(booleanOf(func(in Input) (bool, error) {
			mark := len(in.stack)
			if err := left.text(in); err != nil {
				return false, err
			}
			end, found := len(in.stack), false
			for i := 0; i < len(elements) && !found; i++ {
				if err := elements[i].text(in); err != nil {
					return false, err
				}
				top := in.pop(end)
				found = bytes.Equal(top, in.stack[mark:])
			}
			in.pop(mark)
			return found, nil
		}), all...)
	}
	if left.byteAt > 0 && !slices.ContainsFunc(elements, func(e Value) bool { return !e.constant }) {
		return byteCondition(left, func(x int) bool {
			return slices.ContainsFunc(elements, func(e Value) bool { return e.n == x })
		}), nil
	}
	return fold(booleanOf(func(in Input) (bool, error) {
		x, err := left.number(in)
		if err != nil {
			return false, err
		}
		for _, e := range elements {
			if y, err := e.number(in); err != nil || x == y {
				return err == nil, err
			}
		}
		return false, nil
	}), all...)
}

// conditional compiles condition ? first : second.
func (c *compiler) conditional(n *ast.ConditionalNode) (Value, error) {
	condition, err := c.node(n.Cond)
	if err != nil {
		return Value{}, err
	}
	if condition.kind != Boolean {
		return Value{}, c.at(n.Cond).errorf("a condition is true or false, and this is %v", condition.kind)
	}
	first, err := c.node(n.Exp1)
	if err != nil {
		return Value{}, err
	}
	second, err := c.node(n.Exp2)
	if err != nil {
		return Value{}, err
	}
	if first.kind != second.kind {
		return Value{}, c.at(n.Exp2).errorf("both results of a condition need the same type; this is %v, and the first is %v", second.kind, first.kind)
	}
	choose := func(in Input) (*Value, error) {
		b, err := condition.boolean(in)
		if b {
			return &first, err
		}
		return &second, err
	}
	switch first.kind {
	case Number:
		return NumberOf(func(in Input) (int, error) {
			v, err := choose(in)
			if err != nil {
				return 0, err
			}
			return v.number(in)
		}), nil
	case Text:
		return TextOf(func(in Input) error {
			v, err := choose(in)
			if err != nil {
				return err
			}
			return v.text(in)
		}), nil
	default:
		return booleanOf(func(in Input) (bool, error) {
			v, err := choose(in)
			if err != nil {
				return false, err
			}
			return v.boolean(in)
		}), nil
	}
}
