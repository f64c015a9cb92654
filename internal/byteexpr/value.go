package byteexpr

// Kind is the type of a value.
type Kind int

// The types of values.
const (
	Number Kind = iota + 1
	Text
	Boolean
)

// String returns the type with its article, as in error texts.
func (k Kind) String() string { return [...]string{"", "a number", "text", "true or false"}[k] }

// letter returns the letter of the kind in function.takes.
func (k Kind) letter() string { return [...]string{"", "n", "t", "b"}[k] }

// Value is a part of an expression, or a variable. It has the closure of its kind.
type Value struct {
	kind Kind
	// number and boolean return the value. text pushes it onto the stack.
	number  func(in Input) (int, error)
	text    func(in Input) error
	boolean func(in Input) (bool, error)
	// constant is set if the value is the same for every input. Then n, s or b has the value.
	constant bool
	n        int
	s        string
	b        bool
	// byteAt is set if the value is u8 of a constant index. It is 1 + the index.
	byteAt int
	// test is set if the value is true or false because of one byte of the data.
	test *ByteTest
	// counter is set for the variable n.
	counter bool
}

// NumberOf returns a variable. f returns its number.
func NumberOf(f func(in Input) (int, error)) Value { return Value{kind: Number, number: f} }

// TextOf returns a variable. f pushes its text.
func TextOf(f func(in Input) error) Value { return Value{kind: Text, text: f} }

func booleanOf(f func(in Input) (bool, error)) Value { return Value{kind: Boolean, boolean: f} }

// Counter is the variable n. It has up to 16 bits.
var Counter = Value{kind: Number, counter: true, number: func(in Input) (int, error) { return in.Number, nil }}

// ByteTest is a condition on one byte: it is true for the bytes of a set. Most rules begin with
// such a condition, and it needs neither a closure nor an input.
type ByteTest struct {
	// At is the place of the byte.
	At  int
	set [4]uint64
}

// Has reports whether the condition is true for the byte.
func (t *ByteTest) Has(b byte) bool { return t.set[b>>6]&(1<<(b&63)) != 0 }

// byteCondition returns a condition on one byte. of is the call of u8 that reads this byte.
func byteCondition(of Value, holds func(x int) bool) Value {
	t := &ByteTest{At: of.byteAt - 1}
	for x := range 256 {
		if holds(x) {
			t.set[x>>6] |= 1 << (x & 63)
		}
	}
	return of.tested(t)
}

// tested returns the value of a test. An index outside of the data is an error of u8.
func (of Value) tested(t *ByteTest) Value {
	v := booleanOf(func(in Input) (bool, error) {
		if t.At < len(in.Data) {
			return t.Has(in.Data[t.At]), nil
		}
		_, err := of.number(in)
		return false, err
	})
	v.test, v.number = t, of.number
	return v
}

func constantNumber(n int) Value {
	v := NumberOf(func(Input) (int, error) { return n, nil })
	v.constant, v.n = true, n
	return v
}

func constantText(s string) Value {
	v := TextOf(func(in Input) error { in.PushText(s); return nil })
	v.constant, v.s = true, s
	return v
}

func constantBoolean(b bool) Value {
	v := booleanOf(func(Input) (bool, error) { return b, nil })
	v.constant, v.b = true, b
	return v
}

// fold computes a value whose parts are all constants, and returns it as a constant. Otherwise it
// returns v.
func fold(v Value, of ...Value) (Value, error) {
	for _, part := range of {
		if !part.constant {
			return v, nil
		}
	}
	in := Input{Values: &Values{Limit: MaxSource}}
	switch v.kind {
	case Number:
		n, err := v.number(in)
		return constantNumber(n), err
	case Text:
		err := v.text(in)
		return constantText(string(in.stack)), err
	default:
		b, err := v.boolean(in)
		return constantBoolean(b), err
	}
}
