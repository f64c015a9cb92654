// Package expression compiles and runs the one-line programs of a configuration over messages: filters, routes and mappings.
//
// Start with [New], which makes an [Environment] for one handler, compile its programs with [Environment.Compile], and run them over the
// [Input] that [Environment.Message] makes of a message. What a program reads of a message is made when it reads it, and once for all
// programs of an environment: a filter on metadata never parses JSON, and of JSON only what the programs name is built.
//
// The language is that of expr-lang. It always ends, but may take long: so iterations, and what functions read and make, are counted, and a run
// that exceeds the [Limits] ends with an error. The count is the same whenever the same program runs over the same message.
//
// No single function may take long either, as nothing is counted while it runs. Its cost is counted
// before it begins, by the size of what it is given. A list may have another list many times over, so
// that a few steps make what takes years to walk through: therefore whatever makes a list or map is
// counted by all that is in it, and what exceeds a bound is never made.
package expression

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/vm"
)

const (
	// maxSource is the size of a text that is certainly not meant as a line or two.
	maxSource = 16 << 10
	// maxNodes bounds what one expression consists of.
	maxNodes = 2000
)

// Limits bound what the programs of one environment may take for one message.
type Limits struct {
	// Steps is how many iterations there may be. A function that reads much counts as more, by its size.
	Steps int
	// Elements is how many elements of lists and maps one program may make, Bytes how many bytes of strings.
	Elements, Bytes int
	// Values is how many bytes of memory JSON that was read may take, about, and how many bytes a list
	// or map that a program makes may have, with all that is in it, as if it were written out.
	Values int
	// Payload is the largest payload that can be read.
	Payload int
	// Time is the wall clock's say, for what no step counts, such as comparing large trees. As it is not the message's fault alone, the
	// error is retryable.
	Time time.Duration
}

// DefaultLimits are far above what a line or two needs, and keep a mistake under a second.
var DefaultLimits = Limits{Steps: 1_000_000, Elements: 1_000_000, Bytes: 64 << 20, Values: 256 << 20, Payload: 16 << 20, Time: 2 * time.Second}

// Want is what a program must give.
type Want int

const (
	// Bool is true or false; nil counts as false.
	Bool Want = iota
	// Text is a string, or a number, bool or time that is written as one, or a map or list as JSON. Nil is no text.
	Text
	// Body is what Text is; nil is an error.
	Body
	// List is a list.
	List
)

func (w Want) String() string { return [...]string{"true or false", "text", "a value", "a list"}[w] }

// Environment is what programs of one handler have in common. Compile is for one goroutine; everything after it is safe for concurrent use.
type Environment struct {
	now    func() time.Time
	limits Limits
	reads  reads
}

// New returns an environment whose clock is now.
func New(now func() time.Time) *Environment {
	return &Environment{now: now, limits: DefaultLimits}
}

// Program is a compiled expression.
type Program struct {
	source  string
	want    Want
	program *vm.Program
	// elements is the limit of the same name.
	elements int
	// path is the way into json that the expression is, if it is no more.
	path []string
}

// Compile checks and compiles an expression. The error is an [*Error].
func (e *Environment) Compile(source string, want Want) (*Program, error) {
	switch {
	case strings.TrimSpace(source) == "":
		return nil, &Error{Source: source, Message: "the expression is empty"}
	case len(source) > maxSource:
		return nil, &Error{Message: fmt.Sprintf("the expression has %d bytes; allowed: up to %d", len(source), maxSource)}
	}
	// First as it is written, for the types and for errors in the author's words; then with counting put in, which knows no types.
	plain, err := compile(source, append(declared(), expr.Optimize(false))...)
	if err != nil {
		return nil, compileError(source, err)
	}
	root := plain.Node()
	for _, wrong := range []func(ast.Node) (int, string){misused, oldKey, wrongPattern} {
		if at, message := wrong(root); message != "" {
			return nil, &Error{Source: source, Offset: byteOffset(source, at), Message: message}
		}
	}
	if t := root.Type(); !fits(t, want) {
		return nil, &Error{Source: source, Message: fmt.Sprintf("gives %s; allowed: %s", kindName(t.Kind()), want)}
	}
	counted, err := compile(source, append(counting(), expr.Patch(&patcher{}))...)
	if err != nil {
		return nil, compileError(source, err)
	}
	path := e.reads.note(root)
	return &Program{source: source, want: want, program: counted, elements: e.limits.Elements, path: path}, nil
}

// compile is expr.Compile that never panics.
func compile(source string, options ...expr.Option) (p *vm.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("can't be compiled: %v", r)
		}
	}()
	return expr.Compile(source, append(options, expr.MaxNodes(maxNodes))...)
}

func compileError(source string, err error) *Error {
	if at, ok := errors.AsType[*file.Error](err); ok {
		e := &Error{Source: source, Offset: byteOffset(source, at.From), Message: strings.TrimPrefix(strings.TrimSpace(at.Message), "compilation failed: ")}
		e.explain()
		return e
	}
	// What isn't about a place may come with a stack.
	message, _, _ := strings.Cut(err.Error(), "\n")
	return &Error{Source: source, Message: message}
}

// fits says whether a value of type t may be what is wanted.
func fits(t reflect.Type, want Want) bool {
	switch kind := t.Kind(); kind {
	case reflect.Interface:
		return true
	case reflect.Func:
		return false
	case reflect.Bool:
		return want != List
	case reflect.Slice, reflect.Array:
		return want != Bool
	default:
		return want == Text || want == Body
	}
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Map:
		return "a map"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Func:
		return "a function"
	case reflect.Invalid, reflect.Interface:
		return "nil"
	case reflect.Struct:
		return "a time"
	default:
		return "a number"
	}
}

// misused says which name stands where it can't, and where that is: the name by which the language gives everything at once, as nothing is
// behind it here, and the host's functions where they aren't called.
func misused(root ast.Node) (at int, message string) {
	found := finder{}
	ast.Walk(&root, found)
	for name := range found {
		if at, message = name.Location().From, name.Value+" is a function; allowed: "+name.Value+"()"; name.Value == "$env" {
			message = "unknown name $env"
		}
	}
	return at, message
}

// renamed are keys of metadata that have another name now, as they say how a message came.
var renamed = map[string]string{"exchange": "source.exchange", "routing_key": "source.routing_key"}

// oldKey says which key of metadata is asked for by a name that it had once, and where that is.
func oldKey(root ast.Node) (at int, message string) {
	ast.Walk(&root, visitor(func(node ast.Node) {
		member, ok := node.(*ast.MemberNode)
		if !ok {
			return
		}
		of, isName := member.Node.(*ast.IdentifierNode)
		key, isText := member.Property.(*ast.StringNode)
		if !isName || !isText || of.Value != "meta" {
			return
		}
		if now, ok := renamed[key.Value]; ok {
			at, message = key.Location().From, fmt.Sprintf("the key %s is meta[%q] now", key.Value, now)
		}
	}))
	return at, message
}

// wrongPattern says what is wrong with a regular expression that is written out, and where that is.
func wrongPattern(root ast.Node) (at int, message string) {
	ast.Walk(&root, visitor(func(node ast.Node) {
		operator, ok := node.(*ast.BinaryNode)
		if !ok || operator.Operator != "matches" {
			return
		}
		if text, ok := operator.Right.(*ast.StringNode); ok {
			if _, err := compilePattern(text.Value); err != nil {
				at, message = text.Location().From, err.Error()
			}
		}
	}))
	return at, message
}

type visitor func(ast.Node)

func (v visitor) Visit(node *ast.Node) { v(*node) }

// finder finds names. A callee is visited before its call.
type finder map[*ast.IdentifierNode]bool

// Visit looks at one node.
func (f finder) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if _, ok := functions[n.Value]; ok || n.Value == "$env" {
			f[n] = true
		}
	case *ast.CallNode:
		if name, ok := n.Callee.(*ast.IdentifierNode); ok {
			delete(f, name)
		}
	}
}
