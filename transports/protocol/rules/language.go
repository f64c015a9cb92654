package rules

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"github.com/pentrough/pentrough/internal/exprerror"
	"github.com/pentrough/pentrough/internal/spelling"
	"github.com/pentrough/pentrough/transports/protocol"
)

// The expressions of rules are written in the language of expr-lang, and its parser reads them.
// They don't run in its virtual machine, because a frame must cost little: no allocation for a
// condition, no boxed values, no maps. Instead, each part of an expression becomes a Go closure
// whose type is known. Only what has a closure exists. So there are no loops, lists or maps, and
// each expression ends after a time that depends on its length and on the size of the frame.

const (
	// maxSource is the largest size of an expression, in bytes.
	maxSource = 4096
	// maxNodes is the greatest number of parts that an expression may have.
	maxNodes = 500
)

// kind is the type of a value.
type kind int

const (
	number kind = iota + 1
	text
	boolean
)

func (k kind) String() string { return [...]string{"", "a number", "text", "true or false"}[k] }

// letter returns the letter of the kind in function.takes.
func (k kind) letter() string { return [...]string{"", "n", "t", "b"}[k] }

// value is a part of an expression. It has the closure of its kind.
type value struct {
	kind kind
	// The closure of a number or of true and false returns the value. That of a text pushes it.
	number  func(in *input) (int, error)
	text    func(in *input) error
	boolean func(in *input) (bool, error)
	// constant is set if the value is the same for every input. It is then also here.
	constant bool
	n        int
	s        string
	b        bool
	// byteAt is set for u8 of a constant index. It is 1 + the index.
	byteAt int
	// test is set if the value is true or false because of one byte of the data.
	test *byteTest
	// counter is set for the variable n.
	counter bool
}

func numberOf(f func(in *input) (int, error)) value   { return value{kind: number, number: f} }
func textOf(f func(in *input) error) value            { return value{kind: text, text: f} }
func booleanOf(f func(in *input) (bool, error)) value { return value{kind: boolean, boolean: f} }

// byteTest is a condition on one byte: it is true for the bytes of a set. Most rules begin with
// such a condition, and it needs neither a closure nor an input.
type byteTest struct {
	at  int
	set [4]uint64
}

func (t *byteTest) has(b byte) bool { return t.set[b>>6]&(1<<(b&63)) != 0 }

// byteCondition returns the value of a condition on the byte that a value u8(i) returns.
func byteCondition(of value, holds func(x int) bool) value {
	t := &byteTest{at: of.byteAt - 1}
	for x := range 256 {
		if holds(x) {
			t.set[x>>6] |= 1 << (x & 63)
		}
	}
	return of.tested(t)
}

// tested returns the value of a test. An index outside of the data is an error of u8.
func (of value) tested(t *byteTest) value {
	v := booleanOf(func(in *input) (bool, error) {
		if t.at < len(in.data) {
			return t.has(in.data[t.at]), nil
		}
		_, err := of.number(in)
		return false, err
	})
	v.test, v.number = t, of.number
	return v
}

func constantNumber(n int) value {
	v := numberOf(func(*input) (int, error) { return n, nil })
	v.constant, v.n = true, n
	return v
}

func constantText(s string) value {
	v := textOf(func(in *input) error { in.pushText(s); return nil })
	v.constant, v.s = true, s
	return v
}

func constantBoolean(b bool) value {
	v := booleanOf(func(*input) (bool, error) { return b, nil })
	v.constant, v.b = true, b
	return v
}

// scope says what an expression can name.
type scope struct {
	// of is what the functions read, for error texts: frame, command or payload.
	of        string
	variables map[string]value
	// absent has names that exist elsewhere, with the reason why they don't exist here.
	absent map[string]string
}

// program is a compiled expression.
type program struct {
	value
	// named has the variables that the expression uses.
	named map[string]bool
}

// compiler compiles one expression.
type compiler struct {
	*scope
	source string
	named  map[string]bool
}

// compile compiles an expression that must have a value of a kind. An error is an
// *exprerror.Error.
func (s *scope) compile(source string, want kind) (*program, error) {
	c := &compiler{scope: s, source: source, named: map[string]bool{}}
	switch {
	case strings.TrimSpace(source) == "":
		return nil, &exprerror.Error{Source: source, Message: "the expression is empty"}
	case len(source) > maxSource:
		return nil, &exprerror.Error{Message: fmt.Sprintf("the expression has %d bytes; allowed: up to %d", len(source), maxSource)}
	}
	config := conf.CreateNew()
	config.MaxNodes = maxNodes
	for _, f := range builtin.Builtins {
		config.Disabled[f.Name] = true
	}
	tree, err := parser.ParseWithConfig(source, config)
	if err != nil {
		return nil, exprerror.FromLanguage(source, err)
	}
	v, err := c.node(tree.Node)
	if err != nil {
		return nil, err
	}
	if v.kind != want {
		hint := ""
		if want == text && v.kind == number {
			hint = "; string(x) writes a number as text, and w8(x) as a byte"
		}
		return nil, &exprerror.Error{Source: source, Message: fmt.Sprintf("gives %v; allowed: %v%s", v.kind, want, hint)}
	}
	return &program{value: v, named: c.named}, nil
}

// invalid returns the error of a Validate method for a field whose expression can't be compiled.
func invalid(field string, err error) error {
	if e, ok := errors.AsType[*exprerror.Error](err); ok && e.Source != "" {
		return protocol.InvalidAt(field, e.Source, e.Offset, "%s", e.Message)
	}
	return protocol.Invalid(field, "%v", err)
}

// fault makes the errors of one part of an expression.
type fault struct {
	source string
	offset int
}

func (f fault) errorf(format string, args ...any) error {
	return &exprerror.Error{Source: f.source, Offset: f.offset, Message: fmt.Sprintf(format, args...)}
}

func (c *compiler) at(n ast.Node) fault { return c.atPlace(n.Location()) }

func (c *compiler) atPlace(at file.Location) fault {
	return fault{c.source, exprerror.ByteOffset(c.source, at.From)}
}

// node compiles one part.
func (c *compiler) node(n ast.Node) (value, error) {
	switch n := n.(type) {
	case *ast.IntegerNode:
		return constantNumber(n.Value), nil
	case *ast.BoolNode:
		return constantBoolean(n.Value), nil
	case *ast.StringNode:
		return constantText(c.literal(n)), nil
	case *ast.BytesNode:
		return constantText(string(n.Value)), nil
	case *ast.IdentifierNode:
		return c.variable(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.SliceNode:
		return c.slice(n)
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			return c.call(name, n.Arguments)
		}
		return value{}, c.at(n).errorf("values have no methods")
	case *ast.BuiltinNode:
		return value{}, c.at(n).errorf("%s is a loop, and rules have none; write a protocol in Go for this", n.Name)
	case *ast.FloatNode:
		return value{}, c.at(n).errorf("rules have whole numbers only")
	case *ast.NilNode:
		return value{}, c.at(n).errorf(`rules have no nil; use "" for no text`)
	case *ast.ArrayNode, *ast.MapNode:
		return value{}, c.at(n).errorf("rules have no lists or maps; only x in [1, 2] is allowed")
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		return value{}, c.at(n).errorf("an expression of rules is one value; let and ; aren't allowed")
	case *ast.ChainNode: // text?.a
		return c.node(n.Node)
	case *ast.MemberNode:
		if _, err := c.node(n.Node); err != nil {
			return value{}, err
		}
		return value{}, c.at(n).errorf("values have no fields or elements; allowed: u8(i), at(i, n) and text[from:to]")
	default:
		return value{}, c.at(n).errorf("rules don't have this operator; write a protocol in Go for it")
	}
}

// literal returns the bytes of a text in quotes. The language takes \xff for the character U+00FF.
// In rules it is the byte.
func (c *compiler) literal(n *ast.StringNode) string {
	at := n.Location()
	quoted := c.source[exprerror.ByteOffset(c.source, at.From):exprerror.ByteOffset(c.source, at.To)]
	if len(quoted) < 2 || quoted[0] == '`' || !strings.Contains(quoted, `\`) {
		return n.Value
	}
	var out []byte
	for rest := quoted[1 : len(quoted)-1]; rest != ""; {
		r, multibyte, tail, err := strconv.UnquoteChar(rest, quoted[0])
		switch {
		case err != nil:
			return n.Value // an escape that only the language has
		case multibyte:
			out = append(out, string(r)...)
		default:
			out = append(out, byte(r))
		}
		rest = tail
	}
	return string(out)
}

// variable compiles a name.
func (c *compiler) variable(n *ast.IdentifierNode) (value, error) {
	if v, ok := c.variables[n.Value]; ok {
		c.named[n.Value] = true
		return v, nil
	}
	if f, ok := functions[n.Value]; ok {
		return value{}, c.at(n).errorf("%s is a function; allowed: %s", n.Value, f.usage)
	}
	return value{}, c.unknown(n)
}

// elsewhere has names of other languages, with what to write instead.
var elsewhere = map[string]string{
	"length": "len", "substr": "text[0:5]", "substring": "text[0:5]", "slice": "text[0:5]", "bytes": "at", "byte": "u8",
	"frame": "text", "payload": "text", "data": "text", "json": "text", "msg": "text", "uint8": "u8", "uint16": "u16", "uint32": "u32",
	"str": "string", "toString": "string", "number": "n", "serial": "n", "imei": "device", "fromHex": "unhex", "toHex": "hex", "ascii": "string",
	"now": "utc", "date": "utc", "time": "utc",
}

// unknown returns the error of a name that doesn't exist.
func (c *compiler) unknown(n *ast.IdentifierNode) error {
	name := n.Value
	if why, ok := c.absent[name]; ok {
		return c.at(n).errorf("%s %s", name, why)
	}
	meant := elsewhere[name]
	_, language := builtin.Index[name]
	switch {
	case meant != "":
	case language:
		return c.at(n).errorf("rules don't have the function %s; use groups of match, or write a protocol in Go", name)
	default:
		meant = spelling.Nearest(name, slices.Sorted(maps.Keys(c.variables)))
		if meant == "" {
			meant = spelling.Nearest(name, slices.Sorted(maps.Keys(functions)))
		}
	}
	if meant == "" {
		return c.at(n).errorf("unknown name %s; allowed: the functions, and %s", name, strings.Join(slices.Sorted(maps.Keys(c.variables)), ", "))
	}
	return c.at(n).errorf("unknown name %s; did you mean %s?", name, meant)
}

// fold returns a constant for a value that is computed of constants only.
func fold(v value, of ...value) (value, error) {
	for _, part := range of {
		if !part.constant {
			return v, nil
		}
	}
	in := input{limit: maxSource}
	switch v.kind {
	case number:
		n, err := v.number(&in)
		return constantNumber(n), err
	case text:
		err := v.text(&in)
		return constantText(string(in.stack)), err
	default:
		b, err := v.boolean(&in)
		return constantBoolean(b), err
	}
}
