package expression

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"github.com/expr-lang/expr/file"

	"github.com/pentrough/pentrough/handlers"
	"github.com/pentrough/pentrough/internal/exprerror"
)

// Error is an error in an expression, or in one run of it.
type Error = exprerror.Error

// shownMessage is the number of bytes of a run's error that are shown.
const shownMessage = 400

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
	e := &Error{Source: p.source, Message: err.Error(), Cause: err}
	if at, ok := errors.AsType[*file.Error](err); ok {
		e.Offset, e.Message, e.Cause = exprerror.ByteOffset(p.source, at.From), plain.Replace(at.Message), at.Prev
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
