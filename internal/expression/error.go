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

// Error is what is wrong with an expression, or with one run of it.
type Error struct {
	// Source is the expression, Offset the byte in it at which it is wrong.
	Source  string
	Offset  int
	Message string
	cause   error
}

// shownSource is how much of an expression an error shows.
const shownSource = 80

// shownMessage is how much an error says of what went wrong in a run.
const shownMessage = 400

// Error is one line: where, in what, and the cause.
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

// Unwrap returns the cause, if that is an error of its own.
func (e *Error) Unwrap() error { return e.cause }

// byteOffset returns where the nth rune of a text begins.
func byteOffset(text string, n int) int {
	for i := range text {
		if n <= 0 {
			return i
		}
		n--
	}
	return len(text)
}

// passing is an error that isn't the message's fault and may pass: the machine was slow, or the run was ended.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// plain replaces Go's names of types. A json.Number is a number that isn't altered because nothing is computed with it.
var plain = strings.NewReplacer("<nil>", "nil", "json.Number", exactNumber)

const exactNumber = "number of too many digits to compute with"

var conversion = regexp.MustCompile(`^interface conversion: interface \{\} is (.+), not (.+)$`)

// failed makes an error of what a run ended with: permanent, unless it is the clock's or the context's.
func (p *Program) failed(err error) error {
	e := &Error{Source: p.source, Message: err.Error(), cause: err}
	if at, ok := errors.AsType[*file.Error](err); ok {
		e.Offset, e.Message, e.cause = byteOffset(p.source, at.From), plain.Replace(at.Message), at.Prev
		// The machine's own words for a value of another type.
		switch wrong, ok := errors.AsType[*runtime.TypeAssertionError](err); {
		case at.Message == "memory budget exceeded":
			e.Message = fmt.Sprintf("the expression makes more than %d elements of lists and maps", p.elements)
		case ok:
			e.Message = conversion.ReplaceAllString(plain.Replace(wrong.Error()), "a value of type $1 stands where a $2 is needed")
		}
	}
	// The language's errors have the whole of a text or list in them.
	if len(e.Message) > shownMessage {
		e.Message = strings.ToValidUTF8(e.Message[:shownMessage], "") + "..."
	}
	if _, ok := errors.AsType[passing](err); ok {
		return e
	}
	return handlers.Permanent(e)
}

// Invalid returns the error of a configuration's Validate for a field whose expression couldn't be compiled.
func Invalid(field string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Source != "" {
		return handlers.InvalidAt(field, e.Source, e.Offset, "%s", e.Message)
	}
	return handlers.Invalid(field, "%v", err)
}

func (p *Program) failf(format string, args ...any) error {
	return p.failed(fmt.Errorf(format, args...))
}
