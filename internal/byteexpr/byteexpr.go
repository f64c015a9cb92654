// Package byteexpr is the language of expressions over bytes: the rules of a protocol read frames
// with it, and a codec computes the size of a frame from its first bytes. Start with
// [Scope.Compile].
//
// Expressions are written in the language of expr-lang, and its parser reads them. They don't run
// in its virtual machine, because a frame must cost little: no allocation for a condition, no
// boxed values, no maps. Instead, each part of an expression becomes a Go closure whose type is
// known. There are no closures for loops, lists and maps, so the language has none. Each
// expression ends after a time that depends on its length and on the size of the frame.
package byteexpr

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
)

// MaxSource is the largest size of an expression, in bytes.
const MaxSource = 4096

// maxParts is the largest number of parts that an expression may have. In 1 < x < 3, x counts as
// two parts, because it is compiled for each comparison.
const maxParts = 1000

// Scope says what an expression can name, and what it reads.
type Scope struct {
	// Of is what the functions read, for error texts: frame, command or payload.
	Of        string
	Variables map[string]Value
	// Absent has names that exist elsewhere, with the reason why they don't exist here.
	Absent map[string]string
	// Otherwise says, for error texts, what to use if the language lacks something.
	Otherwise string
	// Partial is set if Data may be the first bytes of a frame whose end is not known yet. Then
	// expressions have no text and no places that are counted from the end.
	Partial bool
}

// Program is a compiled expression.
type Program struct {
	Value
	// Named has the variables that the expression uses.
	Named map[string]bool
	// Test is set if one byte decides whether the program gives true or false. Test.Has is faster
	// than Holds.
	Test *ByteTest
}

// Size runs a program that gives a number, in a partial scope. It returns false if the number
// depends on a byte that isn't in data.
func (p *Program) Size(data []byte) (n int, ok bool) {
	n, err := p.number(Input{Data: data})
	return n, err == nil
}

// Holds runs a program that gives true or false.
func (p *Program) Holds(in Input) (bool, error) { return p.boolean(in) }

// IsEmpty reports whether the result is always the empty text.
func (p *Program) IsEmpty() bool { return p.constant && p.s == "" }

// Read runs a program that gives text. It returns known if the result is the same text, which
// saves an allocation.
func (p *Program) Read(in Input, known string) (string, error) {
	if p.constant {
		return p.s, nil
	}
	mark := len(in.stack)
	if err := p.text(in); err != nil {
		return "", err
	}
	top := in.pop(mark)
	if string(top) == known {
		return known, nil
	}
	return string(top), nil
}

// Append runs a program that gives text, and appends the result to dst.
func (p *Program) Append(in Input, dst []byte) ([]byte, error) {
	mark := len(in.stack)
	if err := p.text(in); err != nil {
		return dst, err
	}
	return append(dst, in.pop(mark)...), nil
}

// compiler compiles one expression.
type compiler struct {
	*Scope
	source string
	named  map[string]bool
	parts  int
}

// Compile compiles an expression that must have a value of the kind want.
func (s *Scope) Compile(source string, want Kind) (*Program, *exprerror.Error) {
	c := &compiler{Scope: s, source: source, named: map[string]bool{}}
	switch {
	case strings.TrimSpace(source) == "":
		return nil, &exprerror.Error{Source: source, Message: "the expression is empty"}
	case len(source) > MaxSource:
		return nil, &exprerror.Error{Message: fmt.Sprintf("the expression has %d bytes; allowed: up to %d", len(source), MaxSource)}
	}
	config := conf.CreateNew()
	for _, f := range builtin.Builtins {
		config.Disabled[f.Name] = true
	}
	tree, err := parser.ParseWithConfig(source, config)
	if err != nil {
		return nil, exprerror.FromLanguage(source, err)
	}
	v, err := c.node(tree.Node)
	if err == nil && v.kind != want {
		hint := ""
		if want == Text && v.kind == Number {
			hint = "; string(x) writes a number as text, and w8(x) as a byte"
		}
		err = fault{source: source}.errorf("gives %v; allowed: %v%s", v.kind, want, hint)
	}
	if at, wrong := errors.AsType[*exprerror.Error](err); wrong {
		return nil, at
	}
	return &Program{Value: v, Named: c.named, Test: v.test}, nil
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
func (c *compiler) node(n ast.Node) (Value, error) {
	if c.parts++; c.parts > maxParts {
		return Value{}, c.at(n).errorf("the expression has too many parts; allowed: up to %d", maxParts)
	}
	v, err := c.part(n)
	if err == nil && v.kind == Text && c.Partial {
		err = c.at(n).errorf("text isn't allowed here; allowed: numbers and conditions")
	}
	return v, err
}

func (c *compiler) part(n ast.Node) (Value, error) {
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
		return Value{}, c.at(n).errorf("values have no methods")
	case *ast.BuiltinNode:
		return Value{}, c.at(n).errorf("%s is a loop, and there are none here; %s", n.Name, c.Otherwise)
	case *ast.FloatNode:
		return Value{}, c.at(n).errorf("only whole numbers are allowed")
	case *ast.NilNode:
		return Value{}, c.at(n).errorf(`there is no nil; use "" for no text`)
	case *ast.ArrayNode, *ast.MapNode:
		return Value{}, c.at(n).errorf("there are no lists or maps here; only x in [1, 2] is allowed")
	case *ast.VariableDeclaratorNode, *ast.SequenceNode:
		return Value{}, c.at(n).errorf("an expression is one value; let and ; aren't allowed")
	case *ast.ChainNode: // text?.a
		return c.node(n.Node)
	case *ast.MemberNode:
		if _, err := c.node(n.Node); err != nil {
			return Value{}, err
		}
		return Value{}, c.at(n).errorf("values have no fields or elements; allowed: u8(i), at(i, n) and text[from:to]")
	default:
		return Value{}, c.at(n).errorf("this operator doesn't exist here; %s", c.Otherwise)
	}
}

// literal returns the bytes of a text in quotes. The language takes \xff for the character U+00FF.
// Here it is the byte.
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
func (c *compiler) variable(n *ast.IdentifierNode) (Value, error) {
	if v, ok := c.Variables[n.Value]; ok {
		c.named[n.Value] = true
		return v, nil
	}
	if f, ok := c.function(n.Value); ok {
		return Value{}, c.at(n).errorf("%s is a function; allowed: %s", n.Value, f.usage)
	}
	return Value{}, c.unknown(n)
}

// elsewhere has names of other languages, with what to write instead.
var elsewhere = map[string]string{
	"length": "len", "substr": "text[0:5]", "substring": "text[0:5]", "slice": "text[0:5]", "bytes": "at", "byte": "u8",
	"frame": "text", "payload": "text", "data": "text", "json": "text", "msg": "text", "uint8": "u8", "uint16": "u16", "uint32": "u32",
	"str": "string", "toString": "string", "number": "n", "serial": "n", "imei": "device", "fromHex": "unhex", "toHex": "hex", "ascii": "string",
	"now": "utc", "date": "utc", "time": "utc",
}

// function returns the function of a name.
func (c *compiler) function(name string) (function, bool) {
	f, ok := functions[name]
	return f, ok && (f.partial || !c.Partial)
}

// names returns the names of the functions and variables, in order.
func (c *compiler) names() (ofFunctions, ofVariables []string) {
	for name := range functions {
		if _, ok := c.function(name); ok {
			ofFunctions = append(ofFunctions, name)
		}
	}
	slices.Sort(ofFunctions)
	return ofFunctions, slices.Sorted(maps.Keys(c.Variables))
}

// unknown returns the error of a name that doesn't exist.
func (c *compiler) unknown(n *ast.IdentifierNode) error {
	name := n.Value
	if why, ok := c.Absent[name]; ok {
		return c.at(n).errorf("%s %s", name, why)
	}
	ofFunctions, ofVariables := c.names()
	meant := elsewhere[name]
	if root, _, _ := strings.Cut(meant, "["); !slices.Contains(ofFunctions, root) && !slices.Contains(ofVariables, root) {
		meant = ""
	}
	_, own := functions[name]
	_, language := builtin.Index[name]
	switch {
	case meant != "":
	case own || language:
		return c.at(n).errorf("the function %s doesn't exist here; %s", name, c.Otherwise)
	default:
		if meant = spelling.Nearest(name, ofVariables); meant == "" {
			meant = spelling.Nearest(name, ofFunctions)
		}
	}
	switch {
	case meant != "":
		return c.at(n).errorf("unknown name %s; did you mean %s?", name, meant)
	case len(ofVariables) == 0:
		return c.at(n).errorf("unknown name %s; allowed: %s", name, strings.Join(ofFunctions, ", "))
	}
	return c.at(n).errorf("unknown name %s; allowed: the functions, and %s", name, strings.Join(ofVariables, ", "))
}
