// Package jsontext reads JSON that others wrote: commands, lines of plugins, payloads for
// expressions. No other package parses JSON of others, so bad JSON gets the same error wherever it
// arrives.
//
// [Scanner] walks over a text of any shape without allocating:
//
//	s := jsontext.New(text)
//	for s.Begin('{'); s.Next(); {
//		switch string(s.Key()) {
//		case "id":
//			id = s.Str()
//		default:
//			s.Value()
//		}
//	}
//	if err := s.End(); err != nil { ... }
//
// [Find] returns one value of a text, [Unmarshal] fills Go values, and [AppendString] writes a
// string.
//
// The rules, which docs/messages.md states for users:
//
//   - A text is one JSON value (RFC 8259), with only white space around it. Apart from the next
//     two rules, the package accepts the texts that encoding/json accepts.
//   - Arrays and objects nest at most [MaxDepth] deep.
//   - A string is UTF-8, and its escapes have no half of a surrogate pair. Nothing is replaced by
//     U+FFFD.
//   - A number isn't converted: its token has it as it was written.
//   - If a key is repeated, the last one counts. A Scanner returns all of them, so that a reader
//     can refuse repeated keys, as commands do.
package jsontext

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested, the outermost included.
const MaxDepth = 500

// Text is the type of a JSON text. Tokens are parts of the text, and aren't copied.
type Text interface{ ~string | ~[]byte }

// Scanner walks once over a JSON text, from its beginning to its end. It keeps the first error.
// After an error each method does nothing, and Next returns false. So a caller checks for errors
// once, at the end.
//
// Errors are of two kinds. A text that isn't JSON ends the walk; [Scanner.End] returns that error.
// A string that can't be text (not UTF-8, or half of a surrogate pair) doesn't end the walk.
// [Token.Text] returns an error for that string, and [Scanner.Flaw] an error for the first such
// string of the text, whether it was read or skipped.
type Scanner[T Text] struct {
	// Name is the name of the current member of an object.
	Name Token[T]

	text T
	pos  int
	err  error
	flaw error
	// depth is how many arrays and objects are open. Each of them has a bit in objects, which is 1
	// for an object.
	depth   int
	objects [MaxDepth/64 + 1]uint64
	// fresh says that an array or object has just begun.
	fresh bool
}

// New returns a scanner at the beginning of text, which must not change while it and its tokens
// are in use.
func New[T Text](text T) Scanner[T] { return Scanner[T]{text: text} }

// Peek returns the kind of the next value, as in [Token]. At the end and after an error it returns
// 0.
func (s *Scanner[T]) Peek() byte {
	c := s.skipSpace()
	if s.err != nil {
		return 0
	}
	if c == '-' || '0' <= c && c <= '9' {
		return '0'
	}
	return c
}

// Begin enters the next value, which must be an array or object. kind is '[' or '{'.
func (s *Scanner[T]) Begin(kind byte) {
	switch {
	case s.err != nil:
	case s.skipSpace() != kind:
		if kind == '{' {
			s.fail(anObject)
		} else {
			s.fail("an array")
		}
	case s.depth == MaxDepth:
		s.err = fmt.Errorf("byte %d: nested too deep; allowed: %d levels", s.pos+1, MaxDepth)
	default:
		bit := uint64(1) << (s.depth % 64)
		if kind == '{' {
			s.objects[s.depth/64] |= bit
		} else {
			s.objects[s.depth/64] &^= bit
		}
		s.depth++
		s.pos++
		s.fresh = true
	}
}

// Next goes to the next element of the array, or the next member of the object, that was entered
// last. The caller then reads its value. At the end Next leaves the array or object and returns
// false.
func (s *Scanner[T]) Next() bool {
	if s.err != nil {
		return false
	}
	at := s.depth - 1
	object := s.objects[at/64]>>(at%64)&1 != 0
	end := byte(']')
	if object {
		end = '}'
	}
	switch c := s.skipSpace(); {
	case c == end:
		s.pos++
		s.depth--
		s.fresh = false
		return false
	case s.fresh:
		s.fresh = false
	case c == ',':
		s.pos++
		s.skipSpace()
	case object:
		return s.fail(`"," or "}"`)
	default:
		return s.fail(`"," or "]"`)
	}
	if !object {
		return true
	}
	if s.pos >= len(s.text) || s.text[s.pos] != '"' {
		return s.fail("a key in quotes")
	}
	s.Name = s.scanString()
	if s.err != nil {
		return false
	}
	if s.skipSpace() != ':' {
		return s.fail(`":"`)
	}
	s.pos++
	return true
}

// Key returns the current member's name. If the name can't be text, Key returns "" and Flaw
// returns an error.
func (s *Scanner[T]) Key() T {
	name, _ := s.Name.Text() // the error is the text's flaw
	return name
}

// Value skips the next value, of any kind, and returns it.
func (s *Scanner[T]) Value() (t Token[T]) {
	c := s.skipSpace()
	if s.err != nil {
		return t
	}
	start := s.pos
	switch c {
	case '"':
		return s.scanString()
	case '{', '[':
		s.skipNested(c)
	case 't':
		s.skipWord("true")
	case 'f':
		s.skipWord("false")
	case 'n':
		s.skipWord("null")
	default:
		c = '0'
		s.skipNumber()
	}
	if s.err != nil {
		return t
	}
	return Token[T]{Kind: c, Raw: s.text[start:s.pos]}
}

// Str returns the text of the next value, which must be a string. If it can't be text, Str returns
// "" and Flaw returns an error.
func (s *Scanner[T]) Str() T {
	if s.skipSpace() != '"' && s.err == nil {
		s.fail("a string")
	}
	text, _ := s.Value().Text() // the error is the text's flaw
	return text
}

// skipNested skips the next value, which is an array or object, without recursion.
func (s *Scanner[T]) skipNested(kind byte) {
	outside := s.depth
	name := s.Name
	s.Begin(kind)
	for s.err == nil && s.depth > outside {
		if !s.Next() {
			continue
		}
		if c := s.skipSpace(); c == '{' || c == '[' {
			s.Begin(c)
		} else {
			s.Value()
		}
	}
	s.Name = name
}

// End returns an error unless the text was JSON and only white space follows.
func (s *Scanner[T]) End() error {
	if s.skipSpace(); s.err == nil && s.pos < len(s.text) {
		s.fail(theEnd)
	}
	return s.err
}

// Err returns the error that ended the walk or, if there is none, that of Flaw.
func (s *Scanner[T]) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.flaw
}

// Flaw returns an error if a string or name so far can't be text. The error has the offset of the
// first one.
func (s *Scanner[T]) Flaw() error { return s.flaw }

// Finish returns the error of End or, if there is none, that of Flaw.
func (s *Scanner[T]) Finish() error {
	_ = s.End()
	return s.Err()
}

// Expectations that have hints of their own.
const (
	anObject  = "an object"
	theEnd    = "the end"
	noControl = "no control character in a string"
)

// fail ends the walk with an error that says what was expected here. It returns false.
func (s *Scanner[T]) fail(expected string) bool {
	rest := string(s.text[s.pos:min(s.pos+hinted, len(s.text))])
	found := "the end"
	if rest != "" {
		r, size := utf8.DecodeRuneInString(rest)
		found = strconv.QuoteRune(r)
		if r == utf8.RuneError && size == 1 {
			found = fmt.Sprintf("0x%02x", rest[0])
		}
	}
	s.err = fmt.Errorf("byte %d: %s; expected: %s", s.pos+1, found, expected)
	if hint := hint(string(s.text[max(0, s.pos-hinted):s.pos]), rest, expected); hint != "" {
		s.err = fmt.Errorf("%w (%s)", s.err, hint)
	}
	return false
}

// skipSpace skips white space and returns the byte after it, or 0 at the end.
func (s *Scanner[T]) skipSpace() byte {
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// skipWord skips the word w, or fails.
func (s *Scanner[T]) skipWord(w string) {
	if end := s.pos + len(w); end > len(s.text) || string(s.text[s.pos:end]) != w {
		s.fail(w)
		return
	}
	s.pos += len(w)
}

// skipNumber skips a number, or fails.
func (s *Scanner[T]) skipNumber() {
	start := s.pos
	if s.isNext('-') {
		s.pos++
	}
	switch {
	case s.isNext('0'):
		s.pos++
	case s.skipDigits():
	case s.pos == start:
		s.fail("a value")
		return
	default:
		s.fail("a digit")
		return
	}
	if s.isNext('.') {
		s.pos++
		if !s.skipDigits() {
			s.fail("a digit")
			return
		}
	}
	if s.isNext('e') || s.isNext('E') {
		s.pos++
		if s.isNext('+') || s.isNext('-') {
			s.pos++
		}
		if !s.skipDigits() {
			s.fail("a digit")
		}
	}
}

// isNext reports whether the next byte is c.
func (s *Scanner[T]) isNext(c byte) bool { return s.pos < len(s.text) && s.text[s.pos] == c }

// skipDigits skips digits and reports whether there was one.
func (s *Scanner[T]) skipDigits() bool {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// The errors of a string that can't be text.
var (
	ErrUTF8      = errors.New("is not UTF-8")
	ErrSurrogate = errors.New("has half of a surrogate pair")
)
