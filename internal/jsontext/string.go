package jsontext

import (
	"fmt"
	"math/bits"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Token is one value of a JSON text. The zero value is none.
type Token[T Text] struct {
	// Kind is the value's first byte: one of {, [, ", t, f and n; for a number it is '0'.
	Kind byte
	// Raw is the value as it was written, a string with its quotes.
	Raw T

	// escaped says that it is a string with escapes.
	escaped bool
	// flaw is what a string can't be text for: an index of flaws.
	flaw uint8
}

const (
	notUTF8       = 1
	halfSurrogate = 2
)

var flaws = [...]error{notUTF8: ErrUTF8, halfSurrogate: ErrSurrogate}

// Text returns the text of a string: a part of Raw unless it has escapes. The error is [ErrUTF8]
// or [ErrSurrogate]. What isn't a string has no text.
func (t Token[T]) Text() (T, error) {
	var none T
	switch {
	case t.Kind != '"':
		return none, nil
	case t.flaw != 0:
		return none, flaws[t.flaw]
	case t.escaped:
		return T(unescape(t.Raw[1 : len(t.Raw)-1])), nil
	default:
		return t.Raw[1 : len(t.Raw)-1], nil
	}
}

// str passes over the string that begins here.
func (s *Scanner[T]) str() Token[T] {
	start := s.pos
	t := Token[T]{Kind: '"'}
	s.pos++
	high := false
	for {
		n, beyond := plain(s.text[s.pos:])
		s.pos += n
		high = high || beyond
		if s.pos >= len(s.text) {
			s.fail("the end of the string")
			return Token[T]{}
		}
		switch s.text[s.pos] {
		case '"':
			s.pos++
			t.Raw = s.text[start:s.pos]
			if high && !utf8.Valid([]byte(t.Raw)) {
				s.note(&t, notUTF8, start+invalid(string(t.Raw)))
			}
			return t
		case '\\':
			t.escaped = true
			if !s.escape(&t) {
				return Token[T]{}
			}
		default:
			s.fail(noControl)
			return Token[T]{}
		}
	}
}

// note notes what the string t can't be text for, found at byte at of the text.
func (s *Scanner[T]) note(t *Token[T], flaw uint8, at int) {
	if t.flaw == 0 {
		t.flaw = flaw
	}
	if s.flaw == nil {
		s.flaw = fmt.Errorf("byte %d: the string %w", at+1, flaws[flaw])
	}
}

// invalid returns the place of the first byte that isn't UTF-8.
func invalid(text string) int {
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return len(text)
}

// escape passes over the escape that begins here; of a surrogate pair over both halves.
func (s *Scanner[T]) escape(t *Token[T]) bool {
	start := s.pos
	s.pos++
	if s.pos >= len(s.text) {
		return s.fail("an escape")
	}
	switch s.text[s.pos] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos++
		return true
	case 'u':
		s.pos++
	default:
		return s.fail(`one of "\/bfnrtu after \`)
	}
	r := hex4(s.text[s.pos:])
	if r < 0 {
		for s.pos < len(s.text) && unhex(s.text[s.pos]) >= 0 {
			s.pos++
		}
		return s.fail("four hex digits")
	}
	s.pos += 4
	if utf16.IsSurrogate(r) {
		if _, ok := second(r, s.text[s.pos:]); ok {
			s.pos += 6
		} else {
			s.note(t, halfSurrogate, start)
		}
	}
	return true
}

// second returns what the surrogate first and the escape at the beginning of rest are together.
func second[T Text](first rune, rest T) (rune, bool) {
	if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
		return 0, false
	}
	r := utf16.DecodeRune(first, hex4(rest[2:]))
	return r, r != utf8.RuneError
}

// unescape returns the text of what was between a string's quotes, which has escapes and no flaw.
func unescape[T Text](raw T) []byte {
	out := make([]byte, 0, len(raw))
	for {
		n, _ := plain(raw)
		out = append(out, raw[:n]...)
		if raw = raw[n:]; len(raw) == 0 {
			return out
		}
		c := raw[1]
		raw = raw[2:]
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
			r := hex4(raw)
			raw = raw[4:]
			if utf16.IsSurrogate(r) {
				r, _ = second(r, raw) // the walk has seen both halves
				raw = raw[6:]
			}
			out = utf8.AppendRune(out, r)
		default: // a quote, a slash or a backslash
			out = append(out, c)
		}
	}
}

// hex4 returns the value of four hexadecimal digits, or -1.
func hex4[T Text](text T) rune {
	if len(text) < 4 {
		return -1
	}
	var r rune
	for i := range 4 {
		digit := unhex(text[i])
		if digit < 0 {
			return -1
		}
		r = r<<4 | digit
	}
	return r
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) rune {
	switch {
	case '0' <= c && c <= '9':
		return rune(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return rune(c|0x20-'a') + 10
	default:
		return -1
	}
}

// plain returns how many bytes stand before the first quote, backslash or control character, and
// whether some byte up to there, or shortly after, is beyond ASCII. It looks at eight bytes at a
// time.
func plain[T Text](text T) (n int, high bool) {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	var seen uint64
	for ; len(text)-n >= 8; n += 8 {
		eight := text[n : n+8]
		w := uint64(eight[0]) | uint64(eight[1])<<8 | uint64(eight[2])<<16 | uint64(eight[3])<<24 |
			uint64(eight[4])<<32 | uint64(eight[5])<<40 | uint64(eight[6])<<48 | uint64(eight[7])<<56
		seen |= w
		// A byte's high bit is set where the byte is below ' ', a quote or a backslash. A borrow
		// may set further ones after the first, which is the one that counts.
		quote, slash := w^(ones*'"'), w^(ones*'\\')
		if found := ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs; found != 0 {
			return n + bits.TrailingZeros64(found)/8, seen&highs != 0
		}
	}
	for ; n < len(text); n++ {
		c := text[n]
		if c < ' ' || c == '"' || c == '\\' {
			break
		}
		seen |= uint64(c)
	}
	return n, seen&highs != 0
}

// AppendString appends text as a JSON string. Bytes that aren't UTF-8 become U+FFFD: a caller
// that mustn't change them checks first, and has another form for them, such as base64.
func AppendString[T Text](dst []byte, text T) []byte {
	dst = append(dst, '"')
	for valid := false; ; {
		n, high := plain(text)
		if high && !valid {
			if !utf8.Valid([]byte(text)) {
				text = T(strings.ToValidUTF8(string(text), string(utf8.RuneError)))
				n, _ = plain(text)
			}
			valid = true
		}
		dst = append(dst, text[:n]...)
		if text = text[n:]; len(text) == 0 {
			return append(dst, '"')
		}
		switch c := text[0]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const hexDigits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		text = text[1:]
	}
}
