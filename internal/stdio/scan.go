package stdio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Scanner goes through JSON (RFC 8259) that is known to be UTF-8. It reads the few shapes that a request has without a description of them, which is several times cheaper
// than encoding/json; a hello goes through that.
type Scanner struct {
	text []byte
	at   int
}

// Scan returns a scanner at the beginning of a text.
func Scan(text []byte) *Scanner { return &Scanner{text: text} }

// ErrJSON is what anything else is.
var ErrJSON = errors.New("a line that isn't a JSON object")

// deepest is how deep values may lie in each other.
const deepest = 1000

// End says whether nothing but white space follows.
func (s *Scanner) End() bool { s.space(); return s.at == len(s.text) }

func (s *Scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// next skips white space and returns the byte there, 0 at the end.
func (s *Scanner) next() byte {
	s.space()
	if s.at == len(s.text) {
		return 0
	}
	return s.text[s.at]
}

// take skips white space and one byte, which must be c.
func (s *Scanner) take(c byte) error {
	if s.next() != c {
		return ErrJSON
	}
	s.at++
	return nil
}

// Object calls member for each member of an object, with its key; that has to go over the value. The key is valid until then.
func (s *Scanner) Object(member func(key []byte) error) error {
	if err := s.take('{'); err != nil {
		return err
	}
	if s.next() == '}' {
		s.at++
		return nil
	}
	for {
		s.space()
		key, err := s.Str()
		if err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
		s.space()
		if err := member(key); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.at++
		case '}':
			s.at++
			return nil
		default:
			return ErrJSON
		}
	}
}

// Value goes over any value and returns what it was.
func (s *Scanner) Value() ([]byte, error) { return s.value(0) }

func (s *Scanner) value(depth int) ([]byte, error) {
	s.space()
	begin := s.at
	var err error
	switch c := s.next(); {
	case depth > deepest:
		err = errors.New("values lie too deep in each other")
	case c == '{':
		err = s.Object(func([]byte) error { _, err := s.value(depth + 1); return err })
	case c == '[':
		err = s.List(func() error { _, err := s.value(depth + 1); return err })
	case c == '"':
		_, err = s.plain()
	default:
		err = s.word()
	}
	return s.text[begin:s.at], err
}

// List calls element for each element of a list; that has to go over it.
func (s *Scanner) List(element func() error) error {
	if err := s.take('['); err != nil {
		return err
	}
	if s.next() == ']' {
		s.at++
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.at++
		case ']':
			s.at++
			return nil
		default:
			return ErrJSON
		}
	}
}

// word goes over a number, true, false or null.
func (s *Scanner) word() error {
	begin := s.at
	for s.at < len(s.text) && (s.text[s.at] >= 'a' && s.text[s.at] <= 'z' || s.text[s.at] >= '0' && s.text[s.at] <= '9' || s.text[s.at] == '-' || s.text[s.at] == '+' || s.text[s.at] == '.' || s.text[s.at] == 'E') {
		s.at++
	}
	switch word := s.text[begin:s.at]; string(word) {
	case "true", "false", "null":
		return nil
	default:
		if !number(word) {
			return ErrJSON
		}
		return nil
	}
}

// number says whether a text is a JSON number.
func number(text []byte) bool {
	digits := func() bool {
		n := 0
		for n < len(text) && text[n] >= '0' && text[n] <= '9' {
			n++
		}
		text = text[n:]
		return n > 0
	}
	if len(text) > 0 && text[0] == '-' {
		text = text[1:]
	}
	if len(text) > 1 && text[0] == '0' && text[1] >= '0' && text[1] <= '9' || !digits() {
		return false
	}
	if len(text) > 0 && text[0] == '.' {
		if text = text[1:]; !digits() {
			return false
		}
	}
	if len(text) > 0 && (text[0] == 'e' || text[0] == 'E') {
		text = text[1:]
		if len(text) > 0 && (text[0] == '-' || text[0] == '+') {
			text = text[1:]
		}
		if !digits() {
			return false
		}
	}
	return len(text) == 0
}

// clean is how many bytes from the beginning need no thought: no quote, no backslash and no control character.
func clean(text []byte) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; len(text)-n >= 8; n += 8 {
		w := binary.LittleEndian.Uint64(text[n:])
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		if found := ((w-ones*0x20)&^w | (quote-ones)&^quote | (slash-ones)&^slash) & high; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	for ; n < len(text); n++ {
		if c := text[n]; c < 0x20 || c == '"' || c == '\\' {
			break
		}
	}
	return n
}

// plain goes over a string and returns what stands between the quotes.
func (s *Scanner) plain() ([]byte, error) {
	if s.at == len(s.text) || s.text[s.at] != '"' {
		return nil, ErrJSON
	}
	begin := s.at + 1
	for s.at = begin; ; {
		s.at += clean(s.text[s.at:])
		if s.at == len(s.text) || s.text[s.at] < 0x20 {
			return nil, ErrJSON
		}
		if s.text[s.at] == '"' {
			s.at++
			return s.text[begin : s.at-1], nil
		}
		if s.at++; s.at == len(s.text) {
			return nil, ErrJSON
		}
		switch s.text[s.at] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			s.at++
		case 'u':
			if unit(s.text[s.at+1:]) < 0 {
				return nil, ErrJSON
			}
			s.at += 5
		default:
			return nil, ErrJSON
		}
	}
}

// unit is the UTF-16 unit that four hexadecimal digits spell, or -1.
func unit(text []byte) rune {
	if len(text) < 4 {
		return -1
	}
	var r rune
	for _, c := range text[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

var errHalfPair = errors.New("half a surrogate pair")

// Str goes over a string and returns its text, which may be a part of the line.
func (s *Scanner) Str() ([]byte, error) {
	text, err := s.plain()
	if err != nil {
		return nil, err
	}
	n := clean(text)
	if n == len(text) {
		return text, nil
	}
	out := append(make([]byte, 0, len(text)), text[:n]...)
	for text = text[n:]; len(text) > 0; {
		c := text[1]
		text = text[2:]
		switch c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := unit(text)
			text = text[4:]
			if utf16.IsSurrogate(r) {
				if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
					return nil, errHalfPair
				}
				if r = utf16.DecodeRune(r, unit(text[2:])); r == utf8.RuneError {
					return nil, errHalfPair
				}
				text = text[6:]
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
		n := clean(text)
		out = append(out, text[:n]...)
		text = text[n:]
	}
	return out, nil
}

// StringValue is str as a string of its own.
func (s *Scanner) StringValue() (string, error) {
	text, err := s.Str()
	return string(text), err
}

// Whole is the whole number that the value of a key is.
func Whole(key string, value []byte) (int64, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("its %s is %q", key, value)
	}
	return n, nil
}
