package expression

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"

	"github.com/pentrough/pentrough/handlers"
)

// Error is an error in an expression, or in one run of it.
type Error struct {
	// Source is the expression, and Offset the byte in it at which the error is.
	Source  string
	Offset  int
	Message string
	cause   error
}

// shownSource is the number of bytes of an expression that an error shows.
const shownSource = 80

// shownMessage is the number of bytes of a run's error that are shown.
const shownMessage = 400

// Error returns one line with the cause, the place and the expression.
func (e *Error) Error() string {
	if e.Source == "" {
		return e.Message
	}
	before := e.Source[:e.Offset]
	line, column := strings.Count(before, "\n")+1, utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])+1
	at := fmt.Sprintf("column %d", column)
	if strings.Contains(e.Source, "\n") {
		at = fmt.Sprintf("line %d, column %d", line, column)
	}
	shown := strings.Join(strings.Fields(e.Source), " ")
	if len(shown) > shownSource {
		shown = strings.ToValidUTF8(shown[:shownSource], "") + "..."
	}
	return fmt.Sprintf("%s (%s of %s)", e.Message, at, shown)
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.cause }

// byteOffset returns the byte at which the nth rune of a text begins.
func byteOffset(text string, n int) int {
	for i := range text {
		if n <= 0 {
			return i
		}
		n--
	}
	return len(text)
}

// passing is an error that may not occur again and that isn't the message's fault: the machine was
// slow, or the run was cancelled.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// plain replaces the names of Go types. A json.Number is a number that keeps its digits, because
// no program can compute with it.
var plain = strings.NewReplacer("<nil>", "nil", "json.Number", exactNumber)

const exactNumber = "number of too many digits to compute with"

var conversion = regexp.MustCompile(`^interface conversion: interface \{\} is (.+), not (.+)$`)

// runError returns the error of a run. It is permanent, unless the clock or the context ended the
// run.
func (p *Program) runError(err error) error {
	e := &Error{Source: p.source, Message: err.Error(), cause: err}
	if at, ok := errors.AsType[*file.Error](err); ok {
		e.Offset, e.Message, e.cause = byteOffset(p.source, at.From), plain.Replace(at.Message), at.Prev
		// The language's own text for a value of the wrong type.
		switch wrong, ok := errors.AsType[*runtime.TypeAssertionError](err); {
		case at.Message == "memory budget exceeded":
			e.Message = fmt.Sprintf("the expression makes more than %d elements of lists and maps", p.elements)
		case ok:
			e.Message = conversion.ReplaceAllString(plain.Replace(wrong.Error()), "a value of type $1 is in a place where a $2 is needed")
		}
	}
	// Errors of the language may contain a whole text or list.
	if len(e.Message) > shownMessage {
		e.Message = strings.ToValidUTF8(e.Message[:shownMessage], "") + "..."
	}
	if _, ok := errors.AsType[passing](err); ok {
		return e
	}
	return handlers.Permanent(e)
}

// Invalid returns the error of a Validate method for a field whose expression can't be compiled.
func Invalid(field string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Source != "" {
		return handlers.InvalidAt(field, e.Source, e.Offset, "%s", e.Message)
	}
	return handlers.Invalid(field, "%v", err)
}

func (p *Program) runErrorf(format string, args ...any) error {
	return p.runError(fmt.Errorf(format, args...))
}
