package byteexpr

import (
	"bytes"

	"github.com/expr-lang/expr/ast"
)

// unary compiles an operator with one operand.
func (c *compiler) unary(n *ast.UnaryNode) (Value, error) {
	v, err := c.node(n.Node)
	if err != nil {
		return Value{}, err
	}
	want := Number
	if n.Operator == "not" || n.Operator == "!" {
		want = Boolean
	}
	if v.kind != want {
		return Value{}, c.at(n).errorf("%s needs %v and has %v", n.Operator, want, v.kind)
	}
	switch n.Operator {
	case "-":
		return fold(NumberOf(func(in Input) (int, error) {
			x, err := v.number(in)
			return -x, err
		}), v)
	case "+":
		return v, nil
	default:
		return fold(booleanOf(func(in Input) (bool, error) {
			b, err := v.boolean(in)
			return !b, err
		}), v)
	}
}

// instead has operators of the language that don't exist here, with what to write instead.
var instead = map[string]string{
	"matches": "only the key match of a rule has regular expressions",
	"/":       "the language gives a fraction; use bitshr(x, 3) for x / 8, or x % 8 for the rest",
	"..":      "use x >= 1 and x <= 5",
	"**":      "write the number",
	"^":       "write the number, or use bitxor(x, y)",
	"??":      "no value is missing",
}

// binary compiles an operator with two operands.
func (c *compiler) binary(n *ast.BinaryNode) (Value, error) {
	if hint, ok := instead[n.Operator]; ok {
		return Value{}, c.at(n).errorf("the operator %s doesn't exist here; %s", n.Operator, hint)
	}
	left, err := c.node(n.Left)
	if err != nil {
		return Value{}, err
	}
	if n.Operator == "in" {
		return c.in(n, left)
	}
	right, err := c.node(n.Right)
	if err != nil {
		return Value{}, err
	}
	if left.kind != right.kind {
		hint := ""
		if n.Operator == "+" {
			hint = "; string(x) writes a number as text, and w8(x) as a byte"
		}
		return Value{}, c.at(n).errorf("%s has %v on the left and %v on the right%s", n.Operator, left.kind, right.kind, hint)
	}
	var v Value
	switch left.kind {
	case Number:
		v, err = c.numbers(n, left, right)
	case Text:
		v = texts(n.Operator, left, right, c.at(n), c.Of)
	default:
		v = booleans(n.Operator, left, right)
	}
	if err == nil && v.kind == 0 {
		err = c.at(n).errorf("%s can't be used with %v", n.Operator, left.kind)
	}
	if err != nil {
		return Value{}, err
	}
	return fold(v, left, right)
}

var arithmetic = map[string]func(x, y int) int{
	"+": func(x, y int) int { return x + y },
	"-": func(x, y int) int { return x - y },
	"*": func(x, y int) int { return x * y },
}

var numberComparisons = map[string]func(x, y int) bool{
	"==": func(x, y int) bool { return x == y },
	"!=": func(x, y int) bool { return x != y },
	"<":  func(x, y int) bool { return x < y },
	"<=": func(x, y int) bool { return x <= y },
	">":  func(x, y int) bool { return x > y },
	">=": func(x, y int) bool { return x >= y },
}

var textComparisons = map[string]func(x, y []byte) bool{
	"==":         bytes.Equal,
	"!=":         func(x, y []byte) bool { return !bytes.Equal(x, y) },
	"<":          func(x, y []byte) bool { return bytes.Compare(x, y) < 0 },
	"<=":         func(x, y []byte) bool { return bytes.Compare(x, y) <= 0 },
	">":          func(x, y []byte) bool { return bytes.Compare(x, y) > 0 },
	">=":         func(x, y []byte) bool { return bytes.Compare(x, y) >= 0 },
	"contains":   bytes.Contains,
	"startsWith": bytes.HasPrefix,
	"endsWith":   bytes.HasSuffix,
}

// combine returns the value of a function of two numbers.
func combine(left, right Value, compute func(x, y int) int) Value {
	return NumberOf(func(in Input) (int, error) {
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

// numbers compiles an operator on numbers. It returns the zero value if there is no such operator.
func (c *compiler) numbers(n *ast.BinaryNode, left, right Value) (Value, error) {
	if compute, ok := arithmetic[n.Operator]; ok {
		return combine(left, right, compute), nil
	}
	holds, ok := numberComparisons[n.Operator]
	switch {
	case ok && left.byteAt > 0 && right.constant:
		return byteCondition(left, func(x int) bool { return holds(x, right.n) }), nil
	case ok:
		return booleanOf(func(in Input) (bool, error) {
			x, err := left.number(in)
			if err != nil {
				return false, err
			}
			y, err := right.number(in)
			return err == nil && holds(x, y), err
		}), nil
	case n.Operator != "%":
		return Value{}, nil
	case c.Partial && (!right.constant || right.n == 0):
		return Value{}, c.at(n.Right).errorf("%% needs a number that isn't 0")
	}
	f := c.at(n)
	return NumberOf(func(in Input) (int, error) {
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
	}), nil
}

// texts compiles an operator on texts. It returns the zero value if there is no such operator.
func texts(operator string, left, right Value, f fault, of string) Value {
	if operator == "+" {
		return TextOf(func(in Input) error {
			if err := left.text(in); err != nil {
				return err
			}
			if err := right.text(in); err != nil {
				return err
			}
			return in.checkSize(f, of)
		})
	}
	holds, ok := textComparisons[operator]
	if !ok {
		return Value{}
	}
	return booleanOf(func(in Input) (bool, error) {
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

// checkSize returns an error if the texts of the run have become too large.
func (v *Values) checkSize(f fault, of string) error {
	if len(v.stack) > v.Limit {
		return f.errorf("the expression makes more than %d bytes of this %s", v.Limit, of)
	}
	return nil
}

// slice compiles text[from:to]. As in the language, negative places count from the end, and places
// outside of the text mean its ends.
func (c *compiler) slice(n *ast.SliceNode) (Value, error) {
	whole, err := c.node(n.Node)
	if err != nil {
		return Value{}, err
	}
	if whole.kind != Text {
		return Value{}, c.at(n).errorf("[from:to] needs text and has %v", whole.kind)
	}
	var ends [2]Value
	for i, end := range []ast.Node{n.From, n.To} {
		if end == nil {
			continue
		}
		if ends[i], err = c.node(end); err != nil {
			return Value{}, err
		}
		if ends[i].kind != Number {
			return Value{}, c.at(end).errorf("[from:to] needs numbers, and this is %v", ends[i].kind)
		}
	}
	from, to := ends[0], ends[1]
	cut := TextOf(func(in Input) error {
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

// clamp returns the place that x means in a text with size bytes.
func clamp(x, size int) int {
	if x < 0 {
		x += size
	}
	return max(0, min(x, size))
}

// keep reduces the text above mark to its bytes from first to last.
func (v *Values) keep(mark, first, last int) {
	n := copy(v.stack[mark:], v.stack[mark+first:mark+last])
	v.stack = v.stack[:mark+n]
}
