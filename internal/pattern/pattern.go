// Package pattern compiles regular expressions that meet texts of strangers. Start with [Compile].
//
// The time of a match is bounded by the length of the text times the size of the pattern. Counted
// repetitions that lie in each other multiply that size: (((abcde){0,10}){0,10}){0,10} is a short
// text and a pattern of more than 6,000 parts. So a pattern has a largest size.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// MaxSize is the largest size of a pattern. It leaves room for a counted repetition with the largest
// count that the language has, 1,000. A match over 64 KiB takes about three seconds at worst; most
// patterns have a size below 100.
const MaxSize = 3000

// Compile returns the regular expression and its size: the number of steps that a match takes for a
// byte of the text, at most. It reads the pattern only as far as it needs to see that it is too large.
func Compile(text string) (re *regexp.Regexp, size int, err error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, 0, plainly(err)
	}
	if size = sizeOf(parsed); size > MaxSize {
		return nil, 0, fmt.Errorf("the regular expression has a size of %d, as counted repetitions multiply what they repeat; allowed: up to %d", size, MaxSize)
	}
	if re, err = regexp.Compile(text); err != nil {
		return nil, 0, plainly(err)
	}
	return re, size, nil
}

// plainly leaves out the name of the Go package's parser.
func plainly(err error) error {
	if wrong, ok := errors.AsType[*syntax.Error](err); ok {
		return fmt.Errorf("the regular expression is wrong: %s: `%s`", wrong.Code, wrong.Expr)
	}
	return err
}

// largeClass is the number of ranges from which on a class of characters is searched, which takes
// about as long as classCost single characters.
const (
	largeClass = 8
	classCost  = 3
)

// sizeOf returns how many instructions a part of a pattern is compiled to, about. It can't overflow:
// the parser refuses repetitions of more than 1,000, also if they are multiplied.
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
		// Each repetition that may be left out has an instruction of its own.
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
