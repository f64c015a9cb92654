package rules

import (
	"slices"

	"github.com/expr-lang/expr/ast"
)

// booleans returns an operator on true and false, or the zero value.
func booleans(operator string, left, right value) value {
	both := left.test != nil && right.test != nil && left.test.at == right.test.at
	switch operator {
	case "and", "&&":
		if both {
			return combined(left, right, func(x, y uint64) uint64 { return x & y })
		}
		return booleanOf(func(in *input) (bool, error) {
			if b, err := left.boolean(in); err != nil || !b {
				return false, err
			}
			return right.boolean(in)
		})
	case "or", "||":
		if both {
			return combined(left, right, func(x, y uint64) uint64 { return x | y })
		}
		return booleanOf(func(in *input) (bool, error) {
			if b, err := left.boolean(in); err != nil || b {
				return b, err
			}
			return right.boolean(in)
		})
	case "==", "!=":
		same := operator == "=="
		return booleanOf(func(in *input) (bool, error) {
			x, err := left.boolean(in)
			if err != nil {
				return false, err
			}
			y, err := right.boolean(in)
			return (x == y) == same, err
		})
	}
	return value{}
}

// combined returns a test of one byte that two tests of the same byte become.
func combined(left, right value, combine func(x, y uint64) uint64) value {
	t := &byteTest{at: left.test.at}
	for i := range t.set {
		t.set[i] = combine(left.test.set[i], right.test.set[i])
	}
	return left.tested(t)
}

// in compiles the operator in, whose right side is a list of constants.
func (c *compiler) in(n *ast.BinaryNode, left value) (value, error) {
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		hint := "a list of constants, such as x in [1, 2]"
		if left.kind == text {
			hint += `; for a part of a text use text contains "x"`
		}
		return value{}, c.at(n).errorf("in needs %s", hint)
	}
	var ns []int
	var ss []string
	for _, element := range list.Nodes {
		v, err := c.node(element)
		if err != nil {
			return value{}, err
		}
		if !v.constant || v.kind != left.kind || v.kind == boolean {
			return value{}, c.at(element).errorf("the elements must be constants of the type on the left, which is %v", left.kind)
		}
		ns, ss = append(ns, v.n), append(ss, v.s)
	}
	if left.kind == text {
		return fold(booleanOf(func(in *input) (bool, error) {
			mark := len(in.stack)
			if err := left.text(in); err != nil {
				return false, err
			}
			top := in.pop(mark)
			return slices.ContainsFunc(ss, func(s string) bool { return s == string(top) }), nil
		}), left)
	}
	if left.kind != number {
		return value{}, c.at(n).errorf("in can't be used with %v", left.kind)
	}
	holds := func(x int) bool { return slices.Contains(ns, x) }
	if left.byteAt > 0 {
		return byteCondition(left, holds), nil
	}
	return fold(booleanOf(func(in *input) (bool, error) {
		x, err := left.number(in)
		return err == nil && holds(x), err
	}), left)
}

// conditional compiles condition ? first : second.
func (c *compiler) conditional(n *ast.ConditionalNode) (value, error) {
	condition, err := c.node(n.Cond)
	if err != nil {
		return value{}, err
	}
	if condition.kind != boolean {
		return value{}, c.at(n.Cond).errorf("a condition is true or false, and this is %v", condition.kind)
	}
	first, err := c.node(n.Exp1)
	if err != nil {
		return value{}, err
	}
	second, err := c.node(n.Exp2)
	if err != nil {
		return value{}, err
	}
	if first.kind != second.kind {
		return value{}, c.at(n.Exp2).errorf("both results of a condition need the same type; this is %v, and the first is %v", second.kind, first.kind)
	}
	choose := func(in *input) (*value, error) {
		b, err := condition.boolean(in)
		if b {
			return &first, err
		}
		return &second, err
	}
	switch first.kind {
	case number:
		return numberOf(func(in *input) (int, error) {
			v, err := choose(in)
			if err != nil {
				return 0, err
			}
			return v.number(in)
		}), nil
	case text:
		return textOf(func(in *input) error {
			v, err := choose(in)
			if err != nil {
				return err
			}
			return v.text(in)
		}), nil
	default:
		return booleanOf(func(in *input) (bool, error) {
			v, err := choose(in)
			if err != nil {
				return false, err
			}
			return v.boolean(in)
		}), nil
	}
}
