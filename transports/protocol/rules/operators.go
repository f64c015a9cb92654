package rules

import (
	"bytes"

	"github.com/expr-lang/expr/ast"
)

// unary compiles an operator with one operand.
func (c *compiler) unary(n *ast.UnaryNode) (value, error) {
	v, err := c.node(n.Node)
	if err != nil {
		return value{}, err
	}
	want := number
	if n.Operator == "not" || n.Operator == "!" {
		want = boolean
	}
	if v.kind != want {
		return value{}, c.at(n).errorf("%s needs %v and has %v", n.Operator, want, v.kind)
	}
	switch n.Operator {
	case "-":
		return fold(numberOf(func(in *input) (int, error) {
			x, err := v.number(in)
			return -x, err
		}), v)
	case "+":
		return v, nil
	default:
		return fold(booleanOf(func(in *input) (bool, error) {
			b, err := v.boolean(in)
			return !b, err
		}), v)
	}
}

// instead has operators that rules don't have, with what to write instead.
var instead = map[string]string{
	"matches": "use the key match of the rule",
	"/":       "the language gives a fraction; use bitshr(x, 3) for x / 8, or x % 8 for the rest",
	"..":      "rules have no lists; use x >= 1 and x <= 5",
	"**":      "write the number",
	"^":       "write the number, or use bitxor(x, y)",
	"??":      "no value is missing in rules",
}

// binary compiles an operator with two operands.
func (c *compiler) binary(n *ast.BinaryNode) (value, error) {
	if hint, ok := instead[n.Operator]; ok {
		return value{}, c.at(n).errorf("rules don't have the operator %s; %s", n.Operator, hint)
	}
	left, err := c.node(n.Left)
	if err != nil {
		return value{}, err
	}
	if n.Operator == "in" {
		return c.in(n, left)
	}
	right, err := c.node(n.Right)
	if err != nil {
		return value{}, err
	}
	if left.kind != right.kind {
		hint := ""
		if n.Operator == "+" {
			hint = "; string(x) writes a number as text, and w8(x) as a byte"
		}
		return value{}, c.at(n).errorf("%s has %v on the left and %v on the right%s", n.Operator, left.kind, right.kind, hint)
	}
	var v value
	switch left.kind {
	case number:
		v = numbers(n.Operator, left, right, c.at(n))
	case text:
		v = texts(n.Operator, left, right, c.at(n), c.of)
	default:
		v = booleans(n.Operator, left, right)
	}
	if v.kind == 0 {
		return value{}, c.at(n).errorf("%s can't be used with %v", n.Operator, left.kind)
	}
	return fold(v, left, right)
}

// numbers returns an operator on numbers, or the zero value.
func numbers(operator string, left, right value, f fault) value {
	arithmetic := func(compute func(x, y int) int) value {
		return numberOf(func(in *input) (int, error) {
			x, err := left.number(in)
			if err != nil {
				return 0, err
			}
			y, err := right.number(in)
			if err != nil {
				return 0, err
			}
			return compute(x, y), nil
		})
	}
	compare := func(holds func(x, y int) bool) value {
		if left.byteAt > 0 && right.constant {
			return byteCondition(left, func(x int) bool { return holds(x, right.n) })
		}
		return booleanOf(func(in *input) (bool, error) {
			x, err := left.number(in)
			if err != nil {
				return false, err
			}
			y, err := right.number(in)
			if err != nil {
				return false, err
			}
			return holds(x, y), nil
		})
	}
	switch operator {
	case "+":
		return arithmetic(func(x, y int) int { return x + y })
	case "-":
		return arithmetic(func(x, y int) int { return x - y })
	case "*":
		return arithmetic(func(x, y int) int { return x * y })
	case "%":
		return numberOf(func(in *input) (int, error) {
			x, err := left.number(in)
			if err != nil {
				return 0, err
			}
			y, err := right.number(in)
			if err != nil {
				return 0, err
			}
			if y == 0 {
				return 0, f.errorf("%d %% 0 has no value", x)
			}
			return x % y, nil
		})
	case "==":
		return compare(func(x, y int) bool { return x == y })
	case "!=":
		return compare(func(x, y int) bool { return x != y })
	case "<":
		return compare(func(x, y int) bool { return x < y })
	case "<=":
		return compare(func(x, y int) bool { return x <= y })
	case ">":
		return compare(func(x, y int) bool { return x > y })
	case ">=":
		return compare(func(x, y int) bool { return x >= y })
	}
	return value{}
}

// texts returns an operator on texts, or the zero value.
func texts(operator string, left, right value, f fault, of string) value {
	if operator == "+" {
		return textOf(func(in *input) error {
			if err := left.text(in); err != nil {
				return err
			}
			if err := right.text(in); err != nil {
				return err
			}
			return in.checkSize(f, of)
		})
	}
	compare := func(holds func(x, y []byte) bool) value {
		return booleanOf(func(in *input) (bool, error) {
			mark := len(in.stack)
			if err := left.text(in); err != nil {
				return false, err
			}
			middle := len(in.stack) - mark
			if err := right.text(in); err != nil {
				return false, err
			}
			both := in.pop(mark)
			return holds(both[:middle], both[middle:]), nil
		})
	}
	switch operator {
	case "==":
		return compare(bytes.Equal)
	case "!=":
		return compare(func(x, y []byte) bool { return !bytes.Equal(x, y) })
	case "<":
		return compare(func(x, y []byte) bool { return bytes.Compare(x, y) < 0 })
	case "<=":
		return compare(func(x, y []byte) bool { return bytes.Compare(x, y) <= 0 })
	case ">":
		return compare(func(x, y []byte) bool { return bytes.Compare(x, y) > 0 })
	case ">=":
		return compare(func(x, y []byte) bool { return bytes.Compare(x, y) >= 0 })
	case "contains":
		return compare(bytes.Contains)
	case "startsWith":
		return compare(bytes.HasPrefix)
	case "endsWith":
		return compare(bytes.HasSuffix)
	}
	return value{}
}

// checkSize returns an error if the texts of the run have become too large.
func (in *input) checkSize(f fault, of string) error {
	if len(in.stack) > in.limit {
		return f.errorf("the expression makes more than %d bytes of this %s", in.limit, of)
	}
	return nil
}

// slice compiles text[from:to]. As in the language, negative places count from the end, and places
// outside of the text mean its ends.
func (c *compiler) slice(n *ast.SliceNode) (value, error) {
	whole, err := c.node(n.Node)
	if err != nil {
		return value{}, err
	}
	if whole.kind != text {
		return value{}, c.at(n).errorf("[from:to] needs text and has %v", whole.kind)
	}
	var ends [2]value
	for i, end := range []ast.Node{n.From, n.To} {
		if end == nil {
			continue
		}
		if ends[i], err = c.node(end); err != nil {
			return value{}, err
		}
		if ends[i].kind != number {
			return value{}, c.at(end).errorf("[from:to] needs numbers, and this is %v", ends[i].kind)
		}
	}
	from, to := ends[0], ends[1]
	cut := textOf(func(in *input) error {
		mark := len(in.stack)
		if err := whole.text(in); err != nil {
			return err
		}
		size := len(in.stack) - mark
		first, last := 0, size
		if from.kind != 0 {
			x, err := from.number(in)
			if err != nil {
				return err
			}
			first = clamp(x, size)
		}
		if to.kind != 0 {
			x, err := to.number(in)
			if err != nil {
				return err
			}
			last = clamp(x, size)
		}
		in.keep(mark, first, max(first, last))
		return nil
	})
	for i := range ends {
		if ends[i].kind == 0 {
			ends[i].constant = true
		}
	}
	return fold(cut, whole, ends[0], ends[1])
}

// clamp returns the place in a text of a size that x means.
func clamp(x, size int) int {
	if x < 0 {
		x += size
	}
	return max(0, min(x, size))
}

// keep reduces the text above mark to its bytes from first to last.
func (in *input) keep(mark, first, last int) {
	n := copy(in.stack[mark:], in.stack[mark+first:mark+last])
	in.stack = in.stack[:mark+n]
}
