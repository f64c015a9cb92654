// Package exprerror has the error of an expression, with its place in the source. Start with
// [Error], or with [FromLanguage] for an error of the parser.
package exprerror

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/file"
)

// Error is an error in an expression, or in one run of it.
type Error struct {
	// Source is the expression, and Offset the byte in it at which the error is.
	Source  string
	Offset  int
	Message string
	// Cause is the error behind this one, or nil.
	Cause error
}

// shownSource is the number of bytes of an expression that an error shows.
const shownSource = 80

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
func (e *Error) Unwrap() error { return e.Cause }

// ByteOffset returns the byte at which the nth rune of a text begins. The language counts runes.
func ByteOffset(text string, n int) int {
	for i := range text {
		if n <= 0 {
			return i
		}
		n--
	}
	return len(text)
}

// FromLanguage returns an error of the language's parser or checker with its place in the source.
func FromLanguage(source string, err error) *Error {
	if at, ok := errors.AsType[*file.Error](err); ok {
		return &Error{Source: source, Offset: ByteOffset(source, at.From), Message: strings.TrimPrefix(strings.TrimSpace(at.Message), "compilation failed: ")}
	}
	// An error without a place may end with a stack.
	message, _, _ := strings.Cut(err.Error(), "\n")
	return &Error{Source: source, Message: message}
}
