// Package pattern compiles regular expressions that are matched with texts of unknown origin.
// Start with [Compile].
//
// The time of a match is at most the length of the text times the size of the pattern. Nested
// counted repetitions multiply the size: (((abcde){0,10}){0,10}){0,10} is a short text and a
// pattern with more than 6,000 parts. So the size has a limit.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// MaxSize is the largest size of a pattern. It has room for one counted repetition with the
// largest count of the language, 1,000. A match with a text of 64 KiB takes about three seconds at
// most. Most patterns have a size below 100.
const MaxSize = 3000

// Compile returns the regular expression and its size. The size is the greatest number of steps
// that a match takes for each byte of the text. Compile stops reading a pattern that is too large.
func Compile(text string) (re *regexp.Regexp, size int, err error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, 0, plainError(err)
	}
	if size = sizeOf(parsed); size > MaxSize {
		return nil, 0, fmt.Errorf("the regular expression has a size of %d, because counted repetitions multiply the size of their content; allowed: up to %d", size, MaxSize)
	}
	if re, err = regexp.Compile(text); err != nil {
		return nil, 0, plainError(err)
	}
	return re, size, nil
}

// plainError returns an error of the parser without the name of the Go package.
func plainError(err error) error {
	if wrong, ok := errors.AsType[*syntax.Error](err); ok {
		return fmt.Errorf("the regular expression is wrong: %s: `%s`", wrong.Code, wrong.Expr)
	}
	return err
}

// largeClass is the number of ranges above which a class of characters is searched. A search takes
// about as long as classCost single characters.
const (
	largeClass = 8
	classCost  = 3
)

// sizeOf returns about how many instructions a part of a pattern becomes. The sum can't overflow:
// the parser refuses repetitions of more than 1,000, nested ones included.
func sizeOf(re *syntax.Regexp) int {
	inner := 0
	for _, sub := range re.Sub {
		inner += sizeOf(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return 2 * len(re.Rune)
		}
		return len(re.Rune)
	case syntax.OpCharClass:
		if len(re.Rune) > 2*largeClass {
			return classCost
		}
		return 1
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpRepeat:
		// Each optional repetition has an instruction of its own.
		times := re.Max
		if times < 0 {
			times = re.Min + 1
		}
		return times*inner + times - re.Min + 1
	case syntax.OpAlternate:
		return inner + len(re.Sub)
	default:
		return inner + 2
	}
}
