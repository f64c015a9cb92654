// Package jsontext reads JSON that others wrote: commands, lines of plugins, payloads for
// expressions. It is the only place that walks over JSON, so bad JSON gets the same answer
// wherever it arrives.
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
//   - A text is one JSON value (RFC 8259) with nothing but white space around it. It is what
//     encoding/json takes, apart from the two rules that follow.
//   - Arrays and objects nest at most [MaxDepth] deep.
//   - A string is UTF-8, and its escapes have no half of a surrogate pair. Nothing is replaced by U+FFFD.
//   - A number is never converted here: its token has it as it was written.
//   - Of equal keys the last counts. A reader that refuses repeated keys, as commands do, sees them all.
package jsontext

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may be nested, the outermost included.
const MaxDepth = 500

// Text is what a JSON text may be held in. Tokens are parts of it, and are not copied.
type Text interface{ ~string | ~[]byte }

// Scanner walks once over a JSON text, from its beginning to its end. It holds the first error:
// from then on each method does nothing, and Next returns false. So a caller checks for errors
// once, at the end.
//
// Errors are of two kinds. A text that isn't JSON ends the walk; [Scanner.End] returns that
// error. A string that can't be text (not UTF-8, or half of a surrogate pair) doesn't end the
// walk; [Token.Text] returns an error for that string, and [Scanner.Flaw] one for the first such
// string of the text, whether it was read or passed over.
type Scanner[T Text] struct {
	// Name is the name of the current member of an object.
	Name Token[T]

	text T
	pos  int
	err  error
	flaw error
	// depth is how many arrays and objects are open. The bit of each in objects says whether it
	// is an object.
	depth   int
	objects [MaxDepth/64 + 1]uint64
	// fresh says that an array or object has just begun.
	fresh bool
}

// New returns a scanner at the beginning of text, which must not change while it and its tokens
// are in use.
func New[T Text](text T) Scanner[T] { return Scanner[T]{text: text} }

// Peek returns the kind of the value that comes next, as in [Token], and no kind (the byte 0) at
// the end or after an error.
func (s *Scanner[T]) Peek() byte {
	c := s.space()
	if s.err != nil {
		return 0
	}
	if c == '-' || '0' <= c && c <= '9' {
		return '0'
	}
	return c
}

// Begin enters the array or object that comes next; kind is '[' or '{'.
func (s *Scanner[T]) Begin(kind byte) {
	switch {
	case s.err != nil:
	case s.space() != kind:
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

// Next goes to the next element of the array, or member of the object, that was entered last. The
// caller then reads its value. At the end Next leaves the array or object and returns false.
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
	switch c := s.space(); {
	case c == end:
		s.pos++
		s.depth--
		s.fresh = false
		return false
	case s.fresh:
		s.fresh = false
	case c == ',':
		s.pos++
		s.space()
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
	s.Name = s.str()
	if s.err != nil {
		return false
	}
	if s.space() != ':' {
		return s.fail(`":"`)
	}
	s.pos++
	return true
}

// Key returns the current member's name. A name that can't be text is empty; Flaw says so.
func (s *Scanner[T]) Key() T {
	name, _ := s.Name.Text() // the error is the text's flaw
	return name
}

// Value passes over the value that comes next, whatever it is, and returns it.
func (s *Scanner[T]) Value() (t Token[T]) {
	c := s.space()
	if s.err != nil {
		return t
	}
	start := s.pos
	switch c {
	case '"':
		return s.str()
	case '{', '[':
		s.pass(c)
	case 't':
		s.word("true")
	case 'f':
		s.word("false")
	case 'n':
		s.word("null")
	default:
		c = '0'
		s.number()
	}
	if s.err != nil {
		return t
	}
	return Token[T]{Kind: c, Raw: s.text[start:s.pos]}
}

// Str returns the text of the value that comes next, which must be a string. One that can't be
// text is empty; Flaw says so.
func (s *Scanner[T]) Str() T {
	if s.space() != '"' && s.err == nil {
		s.fail("a string")
	}
	text, _ := s.Value().Text() // the error is the text's flaw
	return text
}

// pass passes over the array or object that comes next, without recursion.
func (s *Scanner[T]) pass(kind byte) {
	outside := s.depth
	name := s.Name
	s.Begin(kind)
	for s.err == nil && s.depth > outside {
		if !s.Next() {
			continue
		}
		if c := s.space(); c == '{' || c == '[' {
			s.Begin(c)
		} else {
			s.Value()
		}
	}
	s.Name = name
}

// End returns an error unless the text was JSON, and nothing but white space follows.
func (s *Scanner[T]) End() error {
	if s.space(); s.err == nil && s.pos < len(s.text) {
		s.fail(theEnd)
	}
	return s.err
}

// Err returns what is wrong with the text so far: the error that ended the walk, else that of
// Flaw.
func (s *Scanner[T]) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.flaw
}

// Flaw returns an error if a string or name so far can't be text, with the place of the first.
func (s *Scanner[T]) Flaw() error { return s.flaw }

// Finish returns the error of End, else that of Flaw.
func (s *Scanner[T]) Finish() error {
	_ = s.End()
	return s.Err()
}

// What is expected at a place that has hints of its own.
const (
	anObject  = "an object"
	theEnd    = "the end"
	noControl = "no control character in a string"
)

// fail ends the walk: something else was expected here. It returns false.
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

// space passes over white space and returns the byte after it, 0 at the end.
func (s *Scanner[T]) space() byte {
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (s *Scanner[T]) word(w string) {
	if end := s.pos + len(w); end > len(s.text) || string(s.text[s.pos:end]) != w {
		s.fail(w)
		return
	}
	s.pos += len(w)
}

func (s *Scanner[T]) number() {
	start := s.pos
	if s.at('-') {
		s.pos++
	}
	switch {
	case s.at('0'):
		s.pos++
	case s.digits():
	case s.pos == start:
		s.fail("a value")
		return
	default:
		s.fail("a digit")
		return
	}
	if s.at('.') {
		s.pos++
		if !s.digits() {
			s.fail("a digit")
			return
		}
	}
	if s.at('e') || s.at('E') {
		s.pos++
		if s.at('+') || s.at('-') {
			s.pos++
		}
		if !s.digits() {
			s.fail("a digit")
		}
	}
}

func (s *Scanner[T]) at(c byte) bool { return s.pos < len(s.text) && s.text[s.pos] == c }

// digits passes over digits and reports whether there was one.
func (s *Scanner[T]) digits() bool {
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
