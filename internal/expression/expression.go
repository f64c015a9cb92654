// Package expression compiles and runs the one-line programs of a configuration over messages:
// filters, routes and mappings.
//
// Start with [New], which returns an [Environment] for one handler. Compile the handler's programs
// with [Environment.Compile]. [Environment.Message] returns a message as an [Input], over which
// the programs run. An Input computes each part of the message when a program first reads it, and
// once for all programs. So a filter on metadata never parses JSON. Of JSON, only the parts that
// programs name are built.
//
// The language is that of expr-lang. A program always ends, but it may take long. So iterations
// are counted, and also the data that functions read and make. A run that exceeds the [Limits]
// ends with an error. The count is the same each time that a program runs over the same message.
//
// A single function could take long, too, and nothing is counted while it runs. So its cost is
// counted before it begins, by the size of its arguments. A list can contain another list many
// times: a few steps could make a value that takes years to walk. So a new list or map is counted
// with all its content, and a value beyond the limits is never made.
package expression

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/vm"

	"github.com/pentrough/pentrough/internal/exprerror"
)

const (
	// maxSource is the largest size of an expression, in bytes: far more than a line or two.
	maxSource = 16 << 10
	// maxNodes is the greatest number of parts that an expression may have.
	maxNodes = 2000
)

// Limits limit the time and memory of the programs of one environment, for one message.
type Limits struct {
	// Steps is the greatest number of iterations. A function that reads much counts as several, by
	// the size of its arguments.
	Steps int
	// Elements is the greatest number of elements of lists and maps that one program may make.
	// Bytes is the greatest number of bytes of strings.
	Elements, Bytes int
	// Values is about how many bytes of memory the parsed JSON may take. It also limits the size
	// of each list or map that a program makes, written out with all its content.
	Values int
	// Payload is the largest payload that a program can read, in bytes.
	Payload int
	// Time is the longest time of a run. It limits work that no step counts, such as comparing
	// large trees. The error is retryable, because a busy machine may be the cause.
	Time time.Duration
}

// DefaultLimits are far above the needs of a line or two, and end a faulty program within about a
// second.
var DefaultLimits = Limits{Steps: 1_000_000, Elements: 1_000_000, Bytes: 64 << 20, Values: 256 << 20, Payload: 16 << 20, Time: 2 * time.Second}

// Want is the type of result that a program must give.
type Want int

const (
	// Bool is true or false; nil counts as false.
	Bool Want = iota
	// Text is a string. Numbers, bools and times are written as text, and maps and lists as JSON.
	// Nil is no text.
	Text
	// Body is like Text, but nil is an error.
	Body
	// List is a list.
	List
)

func (w Want) String() string { return [...]string{"true or false", "text", "a value", "a list"}[w] }

// Environment has the clock, the limits and the known reads of all programs of one handler.
// Compile must be called from one goroutine. After that, all methods are safe for concurrent use.
type Environment struct {
	now    func() time.Time
	limits Limits
	reads  reads
}

// New returns an environment with this clock.
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
	// path is the path into json, if the expression is a path and nothing else.
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
	// Compile the expression twice. The first time it is as written: this checks the types, and
	// errors quote the author's words. The second time it has the calls that count, which have no
	// types.
	plain, err := compile(source, append(declared(), expr.Optimize(false))...)
	if err != nil {
		return nil, compileError(source, err)
	}
	root := plain.Node()
	for _, wrong := range []func(ast.Node) (int, string){findMisusedName, findRenamedKey, findWrongPattern} {
		if at, message := wrong(root); message != "" {
			return nil, &Error{Source: source, Offset: exprerror.ByteOffset(source, at), Message: message}
		}
	}
	if t := root.Type(); !mayGive(t, want) {
		return nil, &Error{Source: source, Message: fmt.Sprintf("gives %s; allowed: %s", kindName(t.Kind()), want)}
	}
	counted, err := compile(source, append(counting(), expr.Patch(&patcher{}))...)
	if err != nil {
		return nil, compileError(source, err)
	}
	path := e.reads.addExpression(root)
	return &Program{source: source, want: want, program: counted, elements: e.limits.Elements, path: path}, nil
}

// compile calls expr.Compile and returns a panic as an error.
func compile(source string, options ...expr.Option) (p *vm.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("can't be compiled: %v", r)
		}
	}()
	return expr.Compile(source, append(options, expr.MaxNodes(maxNodes))...)
}

// compileError returns an error of the language with its place in the source.
func compileError(source string, err error) *Error {
	e := exprerror.FromLanguage(source, err)
	explain(e)
	return e
}

// mayGive returns whether a value of type t may be the wanted result.
func mayGive(t reflect.Type, want Want) bool {
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

// findMisusedName finds a name that isn't allowed in its place. `$env` stands for all variables at
// once, which don't exist here. A function of the host must be called.
func findMisusedName(root ast.Node) (at int, message string) {
	found := finder{}
	ast.Walk(&root, found)
	for name := range found {
		if at, message = name.Location().From, name.Value+" is a function; allowed: "+name.Value+"()"; name.Value == "$env" {
			message = "unknown name $env"
		}
	}
	return at, message
}

// renamed has the new names of metadata keys that had another name in earlier versions.
var renamed = map[string]string{"exchange": "source.exchange", "routing_key": "source.routing_key"}

// findRenamedKey finds a metadata key that has another name now.
func findRenamedKey(root ast.Node) (at int, message string) {
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

// findWrongPattern finds an error in a regular expression that is a constant.
func findWrongPattern(root ast.Node) (at int, message string) {
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

// finder collects names that must not stand alone. The walk visits a callee before its call.
type finder map[*ast.IdentifierNode]bool

// Visit collects or removes one name.
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
